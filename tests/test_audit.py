"""Numbers about one set, against counts made row by row."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from test_tokenizer import tiny

from sft.data import audit
from sft.data.audit import tokens
from sft.data.batches import truncation
from sft.data.batches.examples import Examples
from sft.data.chat import encoding
from sft.data.chat.encoding import ANSWER, CONTEXT, END, PROMPT, SCAFFOLD, Example
from sft.data.conversation import Conversation, Turn
from sft.data.read.records import Records

KINDS = st.lists(st.sampled_from([SCAFFOLD, PROMPT, CONTEXT, ANSWER, END]), min_size=1, max_size=9)


def conversation(*texts, system=None, source="a.jsonl:1", origin="a") -> Conversation:
    """Turns of the user and the model by turns."""
    turns = [Turn(("user", "model")[i % 2], text) for i, text in enumerate(texts)]
    return Conversation(tuple(turns), system, source, origin)


def pairs(*rows, **fields) -> list[Conversation]:
    """One exchange a row, with line numbers."""
    return [conversation(*row, source=f"a.jsonl:{i + 1}", **fields) for i, row in enumerate(rows)]


def make_set(conversations, **fields) -> audit.Set:
    examples = [encoding.encode(c, tiny(), "gemma3") for c in conversations]
    return audit.Set(
        ["a.jsonl"], Records(list(conversations), **fields), Examples.from_list(examples)
    )


def examples_of(*rows) -> Examples:
    """Rows of kinds; the token ids are all 7."""
    return Examples.from_list(
        [Example(np.full(len(row), 7, np.int32), np.array(row, np.uint8)) for row in rows]
    )


def test_count_agrees_with_the_rows():
    rows = pairs(("hi", "hello"), ("a much longer prompt", "b"), ("c", "d" * 30))
    rows.append(conversation("x", "y", "z", "w", source="b.jsonl:1", origin="b"))
    one = make_set(
        rows,
        rejected=[(f"a.jsonl:{i}", "empty text: prompt") for i in range(30)],
        counts={"empty text": 30},
        unread={"id": 4},
        rows={"a": {"read": 33, "rejected": 30}, "b": {"read": 1, "rejected": 0}},
    )
    found = audit.count(one.files, one.records, one.examples, {"over": 0})
    lengths = [len(encoding.encode(row, tiny(), "gemma3").tokens) for row in rows]
    trained = [int(encoding.encode(row, tiny(), "gemma3").is_target.sum()) for row in rows]
    assert found["rows"] == 4 and found["tokens"] == sum(lengths)
    assert found["trained_tokens"] == sum(trained) and found["max_tokens"] == max(lengths)
    assert found["mean_tokens"] == pytest.approx(sum(lengths) / 4)
    assert found["rejected"] == {"empty text": 30} and found["rejected_rows"] == 30
    assert found["rejected_examples"][0] == "a.jsonl:0: empty text: prompt"
    assert len(found["rejected_examples"]) == 20
    assert found["origins"]["a"]["rejected"] == 30 and found["origins"]["a"]["rows"] == 3
    assert found["origins"]["b"]["tokens"] == lengths[3] and found["unread"] == {"id": 4}
    assert found["lengths"]["exchanges"]["percentiles"]["max"] == 2
    assert found["untrained"] == {"rows": 0, "first": ""} and found["fit"] == {"over": 0}
    assert json.loads(json.dumps(found)) == found


def test_weights_count_as_passes():
    rows = [*pairs(("a", "b")), conversation("a", "b", source="b:1", origin="b")]
    one = make_set(rows)
    found = audit.count([], one.records, one.examples, None, {"b": 3.0})["origins"]
    assert found["a"]["trained_share"] == pytest.approx(0.25)
    assert found["b"]["trained_share"] == pytest.approx(0.75) and found["b"]["weight"] == 3


def test_other_rows_than_the_records_are_refused():
    one = make_set(pairs(("a", "b"), ("c", "d")))
    with pytest.raises(ValueError, match="2 conversations but 1 examples"):
        audit.count([], one.records, one.examples[:1], None)


def test_an_empty_set_has_numbers():
    found = audit.count([], Records([]), Examples.from_list([]), None)
    assert found["rows"] == 0 and found["mean_tokens"] == 0 and found["lengths"]["row"] == {}


@given(st.lists(KINDS, min_size=1, max_size=6))
def test_row_counts_agree_with_a_loop(rows):
    counts = tokens.row_counts(examples_of(*rows))
    for index, row in enumerate(rows):
        goes_on = [ANSWER], [CONTEXT]  # as context, where a repeated stretch is masked
        runs = [i for i, k in enumerate(row) if k == ANSWER and row[i + 1 : i + 2] not in goes_on]
        assert counts.prompt[index] == row.count(PROMPT)
        assert counts.response[index] == sum(kind >= CONTEXT for kind in row)
        assert counts.row[index] == len(row)
        assert counts.trained[index] == row.count(ANSWER) + row.count(END)
        assert counts.answers[index] == len(runs)
        assert counts.ended[index] == sum(row[i + 1 : i + 2] == [END] for i in runs)


@given(st.lists(st.integers(0, 2_000_000), min_size=1, max_size=50))
def test_a_histogram_holds_every_value_in_its_bin(values):
    found = tokens.distribution(np.array(values))
    edges, counts = found["histogram"]["edges"], found["histogram"]["counts"]
    assert edges == sorted(set(edges)) and len(edges) == len(counts) + 1 and len(counts) < 96
    assert counts == [
        sum(low <= value < high for value in values) for low, high in itertools.pairwise(edges)
    ]
    assert sum(counts) == len(values)
    assert found["percentiles"]["max"] == max(values)
    assert found["percentiles"]["50"] == pytest.approx(np.median(values), abs=0.06)


def test_a_long_tail_does_not_coarsen_the_bins():
    values = np.arange(100, 1100)
    alone = tokens.distribution(values)["histogram"]["edges"]
    tailed = tokens.distribution(np.append(values, 200_000))["histogram"]["edges"]
    assert 20 <= len(alone) <= 33 and tailed[: len(alone)] == alone


def test_over_long_goes_through_the_policy():
    rows = examples_of([SCAFFOLD] * 300 + [ANSWER, END], [SCAFFOLD, ANSWER, END])
    found = tokens.over_long(rows, 300, "truncate_response", 4)
    assert [at["length"] for at in found["at"]] == [256, 300, 512]
    assert [at["over"] for at in found["at"]] == [1, 1, 0]
    assert [at["dropped"] for at in found["at"]] == [1, 0, 0]
    assert [at["lost_share"] for at in found["at"]] == [0.5, 0.25, 0]


@given(st.integers(4, 40))
def test_ends_are_those_of_the_rows_as_cut(length):
    rows = [conversation("hello", "a b c", "more", "d e f g"), conversation("hi", "x")]
    examples = make_set(rows).examples
    longest = int(examples.lengths.max()) - 1
    found = tokens.ends(examples, tokens.row_counts(examples), length, "truncate_response")
    assume(length >= examples.lengths.min())  # else no row is left
    cut, _, _ = truncation.fit(examples, length, "truncate_response", 1.0, ["a", "b"])
    after = tokens.row_counts(cut)
    assert found["answers"] - found["ended"] == int((after.answers - after.ended).sum())
    assert (found["share"] == 1) == (int((after.answers - after.ended).sum()) == 0)
    assert length < longest or found["ended"] == found["answers"] == 3


def test_a_second_bos_is_found():
    rows = examples_of([SCAFFOLD, ANSWER], [SCAFFOLD, PROMPT, ANSWER])
    rows.tokens[:] = [2, 5, 2, 2, 5]
    assert tokens.begins(rows, 2, ["a:1", "a:2"]) == {"wrong_rows": 1, "first": "a:2"}
    assert tokens.begins(rows, 5, ["a:1", "a:2"])["wrong_rows"] == 0
