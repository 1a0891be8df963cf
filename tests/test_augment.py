import dataclasses
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sft.data.conversation import Conversation, Turn
from sft.data.sets import augment
from sft.data.sets.augment import Options
from sft.errors import UserError

ALL = Options(
    3, casing=0.5, whitespace=0.5, punctuation=0.5, templates=("Q: {prompt}", "{prompt}!")
)


def row(*texts, source="data.jsonl:1"):
    turns = tuple(Turn("model" if i % 2 else "user", text) for i, text in enumerate(texts))
    return Conversation(turns, "Be brief", source, "origin", "group", "category")


def copies(conversation, options, seed=0):
    found = augment.augment([conversation], options, seed)
    assert found.conversations[0] == conversation
    assert found.made == len(found.conversations) - 1
    assert found.made + found.unchanged == options.copies
    return found.conversations[1:]


def prompt(conversation):
    return conversation.turns[0].text


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
ROW = st.lists(TEXT.filter(str.strip), min_size=2, max_size=4).filter(lambda t: len(t) % 2 == 0)


@settings(max_examples=100, deadline=None)
@given(ROW, st.integers(0, 9))
def test_copies_differ_from_the_row_and_one_another_in_prompts_only(texts, seed):
    original = row(*texts)
    made = copies(original, ALL, seed)
    seen = [original, *made]
    prompts = {tuple(t.text.strip() for t in c.turns if t.role == "user") for c in seen}
    assert len(prompts) == len(seen)
    for copy in made:
        assert copy.turns[1::2] == original.turns[1::2]
        assert [t.role for t in copy.turns] == [t.role for t in original.turns]
        assert all(turn.text.strip() for turn in copy.turns)
        blank = {"turns": (), "source": ""}
        assert dataclasses.replace(copy, **blank) == dataclasses.replace(original, **blank)
    assert {c.source for c in made} <= {f"data.jsonl:1 (copy {n})" for n in (1, 2, 3)}


def test_rows_around_change_nothing_and_the_seed_does():
    rows = [row(f"what is the number {i} of them?", "yes") for i in range(20)]
    whole = augment.augment(rows, ALL, 0)
    apart = [c for r in rows[::-1] for c in augment.augment([r], ALL, 0).conversations]
    by_prompt = lambda found: sorted(map(prompt, found))  # noqa: E731
    assert by_prompt(whole.conversations) == by_prompt(apart)
    assert augment.augment(rows, ALL, 0) == whole
    assert by_prompt(augment.augment(rows, ALL, 1).conversations) != by_prompt(apart)


def test_each_row_is_followed_by_its_copies():
    rows = [row(f"number {i}", "yes", source=f"data.jsonl:{i}") for i in range(4)]
    found = augment.augment(rows, Options(2, templates=("A {prompt}",)), 0)
    assert [c.source for c in found.conversations] == [
        f"data.jsonl:{i}{end}" for i in range(4) for end in ("", " (copy 1)")
    ]
    assert (found.made, found.unchanged) == (4, 4)  # one template makes one copy


def test_casing():
    found = {
        prompt(c) for s in range(20) for c in copies(row("how don't I", "x"), Options(1, 1.0), s)
    }
    assert found == {"HOW DON'T I", "how don't i", "How Don't I"}
    assert copies(row("你好 123", "x"), Options(2, casing=1.0)) == []
    assert {prompt(c) for c in copies(row("Ärger", "x"), Options(9, casing=1.0))} == {
        "ÄRGER",
        "ärger",
    }


def test_whitespace_survives_the_chat_format():
    """Which strips each turn: white space around it would be no change."""
    found = {
        prompt(c)
        for seed in range(40)
        for c in copies(row("a b c", "x"), Options(1, whitespace=1.0), seed)
    }
    assert found == {"a  b c", "a b  c", "a  b  c", "a\nb c", "a b\nc"}
    assert copies(row("  alone ", "x"), Options(5, whitespace=1.0)) == []


@pytest.mark.parametrize(
    ("before", "after"),
    [("what?", "what"), ("what", "what."), ("so ...!", "so"), ("好。", "好")],
)
def test_punctuation(before, after):
    (copy,) = copies(row(before, "x"), Options(1, punctuation=1.0))
    assert prompt(copy) == after


def test_punctuation_alone_stays():
    assert copies(row("?!", "x"), Options(1, punctuation=1.0)) == []


def test_a_template_goes_around_the_first_prompt_as_written():
    options = Options(1, casing=1.0, templates=("Say {{it}}: {prompt}",))
    (copy,) = copies(row("ab", "x", "cd", "y"), options, seed=3)
    assert prompt(copy) in ("Say {it}: AB", "Say {it}: Ab")
    assert copy.turns[2].text in ("CD", "Cd")
    (braces,) = copies(row("{prompt} {x} {", "y"), Options(1, templates=("Do: {prompt}",)))
    assert prompt(braces) == "Do: {prompt} {x} {"


def test_probabilities_are_those_of_copies():
    rows = [row(f"number {i}", "yes") for i in range(1000)]
    found = augment.augment(rows, Options(1, punctuation=0.3), 0)
    assert found.made == sum(prompt(c).endswith(".") for c in found.conversations)
    assert 250 < found.made < 350


def test_copies_that_nothing_could_change_are_refused():
    assert augment.augment([row("a", "b")], Options(0), 0).made == 0
    with pytest.raises(UserError, match=r"augment\.copies = 2, but .* all off"):
        augment.augment([row("a", "b")], Options(2), 0)


def test_templates_of_a_file(tmp_path):
    path = tmp_path / "templates.txt"
    path.write_bytes("\ufeffAsk: {prompt} \r\n\n{prompt} {{now}}\n".encode())
    assert augment.load_templates(str(path)) == ("Ask: {prompt}", "{prompt} {{now}}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{prompt}\nSay it\n", r"t\.txt:2: found no field, expected \{prompt\} once"),
        (b"{prompt} and {prompt}", r"t\.txt:1: found \{prompt\}, \{prompt\}, expected"),
        (b"\n\n{prompt} in {language}", r"t\.txt:3: found \{prompt\}, \{language\}"),
        (b"{prompt", r"t\.txt:1: .*Write \{\{ and \}\}"),
        (b"{prompt!r}", r"t\.txt:1: .*by its name alone"),
        (b"{}", r"t\.txt:1: .*by its name alone"),
        (b"\n \n", r"t\.txt: no templates"),
        (b"\xff{prompt}", r"t\.txt: not UTF-8, at byte 1"),
    ],
)
def test_templates_that_cannot_be_used(tmp_path, text, message):
    path = tmp_path / "t.txt"
    path.write_bytes(text)
    with pytest.raises(UserError, match=message) as error:
        augment.load_templates(str(path))
    assert "\n" not in str(error.value)


def test_missing_templates(tmp_path):
    with pytest.raises(UserError, match=r"none\.txt: cannot read: No such file"):
        augment.load_templates(str(tmp_path / "none.txt"))
    with pytest.raises(UserError, match="a folder, expected a file"):
        augment.load_templates(str(tmp_path))


def test_changes_are_drawn_from_their_own_generator():
    random.seed(0)
    first = random.random()
    random.seed(0)
    augment.augment([row("a b c", "x")], ALL, 0)
    assert random.random() == first
