"""Rows token by token, and numbers by category, as they stand in the audit."""

import dataclasses
import json

import numpy as np
import pytest
import tiny_run
from test_audit import conversation, make_set, pairs
from test_audit_report import Tags, clean, examine
from test_sets import config_of
from test_tokenizer import tiny, tiny_pieces

from sft.commands import data
from sft.data.audit import rendered
from sft.data.batches import truncation
from sft.data.batches.examples import Examples
from sft.data.chat import encoding
from sft.data.dedup.stretches import without
from sft.data.tokenizer import sentencepiece
from sft.report.audit import page as audit_page
from sft.report.audit import terminal as audit_terminal

registered = tiny_run.registered


PIECES = [piece for piece, _, _ in tiny().pieces()]


def encoded(*talks):
    return Examples.from_list([encoding.encode(one, tiny(), "gemma3") for one in talks])


def shown(talk, after=None, cuts=None):
    """The kinds and texts of a row's pieces, runs of a kind joined."""
    before = encoded(talk)
    given = rendered.Shown([talk], before, before if after is None else after, cuts or {})
    (row,) = rendered.describe(given, PIECES)
    assert row["tokens"] == len(before.tokens)
    runs = []
    for kind, text, _ in row["pieces"]:
        if runs and runs[-1][0] == kind:
            runs[-1][1] += text
        else:
            runs.append([kind, text])
    return [tuple(run) for run in runs], row


def test_a_row_is_shown_as_the_model_gets_it():
    talk = conversation("hi", "a b", "more", "c", system="be kind")
    turns = (talk.turns[0], dataclasses.replace(talk.turns[1], trained=False), *talk.turns[2:])
    runs, row = shown(dataclasses.replace(talk, turns=turns))
    assert runs == [
        ("control", "<bos><start_of_turn>user\n"),
        ("system", "be kind\n\n"),
        ("prompt", "hi"),
        ("control", "<end_of_turn>\n<start_of_turn>model\n"),
        ("context", "a b<end_of_turn>"),
        ("control", "\n<start_of_turn>user\n"),
        ("prompt", "more"),
        ("control", "<end_of_turn>\n<start_of_turn>model\n"),
        ("trained", "c"),
        ("end", "<end_of_turn>"),
    ]
    assert row["trained"] == 2 and not row["dropped"]
    ids = [token for _, _, token in row["pieces"]]
    assert ids == encoded(talk).tokens.tolist()


def test_a_control_string_in_a_text_is_text():
    runs, row = shown(conversation("<end_of_turn>", "x"))
    assert ("prompt", "<end_of_turn>") in runs
    assert sum(kind == "prompt" for kind, *_ in row["pieces"]) > 1


def test_what_deduplication_masked_or_cut():
    talk = conversation("hi", "qwertyuiop")
    before = encoded(talk)
    place = np.flatnonzero(before.kinds == encoding.ANSWER)
    kinds = before.kinds.copy()
    kinds[place[2:6]] = encoding.CONTEXT
    runs, row = shown(talk, Examples(before.tokens, kinds, before.starts))
    said = [run for run in runs if run[0] in ("trained", "masked")]
    assert [kind for kind, _ in said] == ["trained", "masked", "trained"]
    assert "".join(text for _, text in said) == "qwertyuiop"
    assert row["trained"] == (before.kinds >= encoding.ANSWER).sum() - 4
    gone = np.zeros(len(before.tokens), bool)
    gone[place[2:6]] = True
    runs_cut, _ = shown(talk, without(before, gone))
    assert [(k.replace("masked", "cut"), t) for k, t in runs] == runs_cut


@pytest.mark.parametrize("seed", range(20))
def test_the_tokens_that_stay_are_those_that_are_left(seed):
    draw = np.random.default_rng(seed)
    before = draw.integers(0, 3, 30).tolist()
    stays = draw.random(30) < 0.7
    after = [token for token, is_left in zip(before, stays, strict=True) if is_left]
    found = rendered._stays(before, after)
    assert [token for token, is_left in zip(before, found, strict=True) if is_left] == after


@pytest.mark.parametrize("policy", truncation.POLICIES)
def test_what_goes_for_the_length(policy):
    talk = conversation("hi", "a b", "more of it", "c d e f g")
    examples = encoded(talk)
    left, kept, _ = truncation.cut(examples, 24, policy, ["a:1"])
    cuts = truncation.gaps(examples, 24, policy)
    runs, row = shown(talk, cuts=cuts)
    whole = "".join(text for _, text in runs)
    assert whole.startswith("<bos><start_of_turn>user\nhi<end_of_turn>\n")
    ids = [token for kind, _, token in row["pieces"] if kind != "cut"]
    assert ids == (left.tokens.tolist() if len(kept) else [])
    assert row["dropped"] == (not len(kept)) and row["trained"] == left.trained.sum()
    assert shown(talk, cuts=truncation.gaps(examples, 999, policy))[1]["dropped"] is False


def test_a_long_row_is_shown_where_something_begins():
    talk = conversation("hi", " ".join(map(str, range(2000))), "more", "c")
    _, row = shown(talk)
    gaps = [number for kind, number, _ in row["pieces"] if kind == "gap"]
    assert len(gaps) == 1 and gaps[0] > 3000
    assert len(row["pieces"]) - 1 + gaps[0] == row["tokens"]
    assert [kind for kind, *_ in row["pieces"]][-2:] == ["trained", "end"]
    short = conversation("hi", "1 " * 55)
    assert not [kind for kind, *_ in shown(short)[1]["pieces"] if kind == "gap"]


def test_rows_of_every_source_and_kind_are_chosen():
    rows = [conversation(f"q{i}", "a", origin="ab"[i % 2]) for i in range(10)]
    rows[6] = dataclasses.replace(rows[6], system="s")
    rows += [conversation(f"q{i}", "a", origin="few") for i in range(2)]
    found = rendered.choose(rows, encoded(*rows), special=[7])
    assert found == [0, 1, 2, 6, 7, 10]
    assert rendered.choose(rows[:1], encoded(rows[0])) == [0]
    assert rendered.choose([], encoded()) == []
    many = [conversation("q", "a", origin=str(i)) for i in range(50)]
    assert rendered.choose(many, encoded(*many)) == [0, 1, 2, 3]


def test_categories_are_counted():
    rows = [
        dataclasses.replace(row, category=["long", "short", ""][i % 3])
        for i, row in enumerate(pairs(*((("q", "a b c"), ("q", "a"), ("q", "a"))[i % 3]
                                        for i in range(30))))
    ]  # fmt: skip
    report = examine(make_set(rows), validation=clean(60, 1))
    found = report["sets"]["train"]["categories"]
    assert report["sets"]["validation"]["categories"] == {}
    assert [*found] == ["", "long", "short"] and all(one["rows"] == 10 for one in found.values())
    each = make_set(rows).examples
    assert found["long"]["trained_tokens"] == 10 * each.trained[0]
    assert found["long"]["median_tokens"] == found["long"]["max_tokens"] == each.lengths[0]
    assert sum(one["trained_share"] for one in found.values()) == pytest.approx(1)
    text = audit_terminal.render(report)
    assert "categories of train" in text and "(none)" in text and "  long " in text
    page = audit_page.render(report)
    assert "<h2>Categories</h2>" in page and "(none)" in page
    assert "Categories" not in audit_page.render(examine(clean(), validation=clean(60, 1)))


def test_many_categories_are_told_together():
    rows = [dataclasses.replace(row, category=f"c{i}") for i, row in enumerate(clean(120))]
    rows += [dataclasses.replace(row, category="c0") for row in rows[:5]]
    found = examine(make_set(rows))["sets"]["train"]["categories"]
    assert len(found) == 51 and next(iter(found)) == "c0" and found["c0"]["rows"] == 6
    assert [*found][-1] == "…" and found["…"]["rows"] == 125 - 6 - 49


def test_the_page_of_a_run_shows_rows_and_escapes_them(tmp_path):
    evil = '<script>alert("x")</script>\n'
    rows = [{"input_text": f"{evil} {i}", "output_text": f"{evil} a{i}"} for i in range(30)]
    rows += [{"input_text": "long", "output_text": "a " * 190}]
    model = tmp_path / "tokenizer.model"
    model.write_bytes(sentencepiece._model_proto(tiny_pieces()))
    path = tiny_run.write_rows(tmp_path / "evil.jsonl", rows)
    changes = {"data.train": str(path), "data.reading.group": "", "data.max_length": 128}
    changes |= {"model.name": "tiny_run", "model.tokenizer": str(model)}
    config = config_of(tmp_path, changes | {"loss.prompt_weight": 0.25})
    report = data.main(config, str(tmp_path / "run"))
    assert json.loads((tmp_path / "run" / "data" / "report.json").read_text()) == report
    one, *_, last = report["sets"]["train"]["shown"]
    assert one["source"].endswith("evil.jsonl:1") and last["dropped"] and not last["trained"]
    page = (tmp_path / "run" / "data" / "report.html").read_text()
    tags = Tags()
    tags.feed(page)
    assert tags.open == [] and "script" not in tags.seen and "&lt;" in page
    assert "Rows as they are trained" in page and "dropped for its length" in page
    assert "have a loss of weight 0.25" in page and 'class="trained"' in page and "↵" in page
