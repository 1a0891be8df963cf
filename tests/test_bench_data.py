"""The data benchmark's own arithmetic and files; what it measures needs other environments."""

import argparse
import importlib
import importlib.util
import itertools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from sft.data.chat import encoding
from sft.data.read import records
from sft.data.read.records import Conversation, Turn
from sft.errors import BAD_INPUT, UserError

BENCH = Path(__file__).parents[1] / "scripts" / "bench"
sys.path.append(str(BENCH / "peers"))
SPEC = importlib.util.spec_from_file_location("bench_data", BENCH / "data.py")
assert SPEC and SPEC.loader
bench = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(bench)

import data_exchange  # noqa: E402
import data_programs  # noqa: E402

RESERVED = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "  "]
JOINED = ["▁▁▁", "ab", "bc", "▁a", "abc", "▁b", "cab", "aa", "aaa", "▁▁a", "ca"]  # best first
LETTERS = ["▁", "a", "b", "c"]


def vocabulary() -> tuple[list[str], list[float], list[int]]:
    """Columns as in GGUF: the reserved pieces as control or user-defined, the others normal."""
    pieces = RESERVED + JOINED + LETTERS
    scores = [-1000.0] * len(RESERVED) + [-float(i) for i in range(len(JOINED + LETTERS))]
    kinds = [3] * 5 + [4] + [1] * len(JOINED + LETTERS)
    return pieces, scores, kinds


def processor() -> sentencepiece.SentencePieceProcessor:
    """SentencePiece itself on the normal pieces of the vocabulary."""
    schema: Any = importlib.import_module("sentencepiece.sentencepiece_model_pb2")
    model = schema.ModelProto()
    model.trainer_spec.model_type = schema.TrainerSpec.BPE
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = False
    model.normalizer_spec.remove_extra_whitespaces = False
    for piece, score, kind in zip(*vocabulary(), strict=True):
        kind = {3: 3, 4: 4, 1: 1}[kind] if piece != "<unk>" else 2
        model.pieces.add(piece=piece.replace(" ", "▁"), score=score, type=kind)
    loaded = sentencepiece.SentencePieceProcessor()
    loaded.load_from_serialized_proto(model.SerializeToString())
    return loaded


PROCESSOR = processor()
FILE = data_exchange.tokenizer_json(*vocabulary())
RANKS = {pair: rank for rank, pair in enumerate(map(tuple, FILE["model"]["merges"]))}


def byte_pair_pieces(text: str) -> list[str]:
    """Byte-pair encoding by its definition: the first merge of the list that applies, leftmost."""
    parts = list(text.replace(" ", "▁"))
    while True:
        ranked = [
            (RANKS[pair], i) for i, pair in enumerate(itertools.pairwise(parts)) if pair in RANKS
        ]
        if not ranked:
            return parts
        _, i = min(ranked)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]


@given(st.text("abc", max_size=30))
def test_merges_of_the_peers_file_tokenise_as_sentencepiece_does(text):
    assert byte_pair_pieces(text) == PROCESSOR.encode(text, out_type=str)


def test_runs_of_white_space_are_merged_before_anything_else():
    assert byte_pair_pieces("a   a  b") == ["a", "▁▁▁", "a", "▁▁", "b"]
    # By score alone the second run would be "▁", "▁b".


def test_peers_file_holds_the_vocabulary_in_order_of_id():
    pieces, _, _ = vocabulary()
    assert list(FILE["model"]["vocab"]) == [piece.replace(" ", "▁") for piece in pieces]
    assert list(FILE["model"]["vocab"].values()) == list(range(len(pieces)))
    added = {row["content"]: row for row in FILE["added_tokens"]}
    assert list(added) == [*RESERVED[:5], "▁▁"]
    assert added["<start_of_turn>"]["special"] and not added["▁▁"]["special"]
    assert [FILE["model"]["vocab"][content] for content in added] == [
        row["id"] for row in added.values()
    ]


def test_written_conversations_are_read_back_unchanged(tmp_path):
    turns = (
        Turn("user", " hé\n\u2028?"),
        Turn("model", "yes "),
        Turn("user", "b"),
        Turn("model", "c"),
    )
    written = [Conversation(turns, None, "x:1"), Conversation(turns[:2], "Be brief.", "x:2")]
    path = tmp_path / "rows.jsonl"
    data_exchange.write_conversations(path, written)
    assert json.loads(path.read_text().split("\n")[1])["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": " hé\n\u2028?"},
        {"role": "assistant", "content": "yes "},
    ]
    found = records.read([records.Source("rows", str(path), records.Reading())]).conversations
    assert [(c.turns, c.system) for c in found] == [(c.turns, c.system) for c in written]


def example(*turns: tuple[list[int], int]) -> encoding.Example:
    """Tokens and the kind of each, turn by turn; answers end with their end of turn."""
    tokens, kinds = [], []
    for ids, kind in turns:
        tokens += ids
        kinds += [kind] * len(ids)
        if kind == encoding.ANSWER:
            tokens.append(106)
            kinds.append(encoding.END)
    return encoding.Example(np.array(tokens, np.int32), np.array(kinds, np.uint8))


def theirs(*rows: tuple[list[int], list[int]]) -> dict[str, np.ndarray]:
    """Rows of (ids, positions that are trained) as TRL's side writes them."""
    ids = [id_ for row, _ in rows for id_ in row]
    labels = [id_ if i in trained else -100 for row, trained in rows for i, id_ in enumerate(row)]
    offsets = np.cumsum([0] + [len(row) for row, _ in rows])
    return {"ids": np.array(ids), "labels": np.array(labels), "offsets": offsets}


TWO_ANSWERS = example(
    ([2, 105, 9], 0), ([7, 8], encoding.ANSWER), ([107, 5], 0), ([6], encoding.ANSWER)
)
TRL_IDS = [2, 105, 9, 7, 8, 106, 107, 5, 6, 106, 107]  # 107: the newline after a turn


@pytest.mark.parametrize(
    "ids, trained, expected",
    [
        (TRL_IDS, [3, 4, 5, 6, 8, 9, 10], ([], [])),
        (TRL_IDS, [3, 4, 5, 8, 9, 10], ([], ["f:1"])),  # an answer's newline is not trained
        (TRL_IDS, [2, 3, 4, 5, 6, 8, 9, 10], ([], ["f:1"])),  # the prompt is
        ([*TRL_IDS[:4], 1, *TRL_IDS[5:]], [3, 4, 5, 6, 8, 9, 10], (["f:1"], [])),
        (TRL_IDS[:-1], [3, 4, 5, 6, 8, 9], (["f:1"], [])),
    ],
)
def test_ids_and_masks_are_compared_but_for_the_newlines(ids, trained, expected):
    found = data_exchange.compare_ids([TWO_ANSWERS], ["f:1"], theirs((ids, trained)))
    assert (found["ids_differ"], found["mask_differs"]) == expected
    assert found["compared"] == 1


def test_another_number_of_conversations_is_no_comparison():
    with pytest.raises(ValueError, match="1 conversations of theirs, 2 of ours"):
        data_exchange.compare_ids([TWO_ANSWERS] * 2, ["a", "b"], theirs((TRL_IDS, [3])))


def run_of(seconds: float, trained: int = 1000, conversations: int = 10, **more) -> dict:
    return {
        "seconds": {"read": seconds / 4, "encode": seconds * 3 / 4},
        "conversations": conversations,
        "tokens": 3000,
        "trained_tokens": trained,
        "padding_share": 0.01,
        "foreign_cores": 0.0,
    } | more


def test_no_ratio_where_the_sides_do_not_do_the_same_work():
    bench.check_work({"ours_1": run_of(1), "trl_1": run_of(9, trained=1010)})
    with pytest.raises(UserError, match=r"ours_1 trains 1000 tokens and trl_1 1011, 1\.1%"):
        bench.check_work({"ours_1": run_of(1), "trl_1": run_of(9, trained=1011)})
    with pytest.raises(UserError, match=r"ours_2 has 10 conversations .* trl_2 9"):
        bench.check_work({"ours_2": run_of(1), "trl_2": run_of(9, conversations=9)})


def result() -> dict:
    runs = {name: [run_of(2.0), run_of(1.0), run_of(4.0)] for name in bench.PROGRAMS}
    runs["trl_1"] = [run_of(20.0), run_of(30.0), run_of(24.0)]
    runs["trl_2"] = [run_of(10.0, tokens=3010)] * 3
    runs["ours_original"] = [run_of(2.0, tokens=5000)] * 3
    args = argparse.Namespace(max_length=2048, batch_size=8, rounds=3)
    return bench.summary(args, {"answers": 20}, runs)


def test_rates_and_ratios_are_medians_and_a_ratio_is_of_one_round():
    found = result()
    assert (found["ours"], found["peers"]) == (1500, {"trl_1": 125, "trl_2": 300})
    assert found["detail"]["ratios"]["trl_1"] == {"median": 10.0, "min": 6.0, "max": 30.0}
    assert found["ratio"] == {"trl_1": 10.0, "trl_2": 5.0}
    ours = found["detail"]["programs"]["ours_1"]
    assert (ours["min_seconds"], ours["median_seconds"]) == (1.0, 2.0)
    assert ours["spans"] == {"read": 0.5, "encode": 1.5}
    assert found["detail"]["programs"]["ours_original"]["tokens_per_second"] == 2500
    assert json.loads(json.dumps(found)) == found


def test_table_names_every_program_and_warns_of_a_busy_machine():
    found = result()
    assert [line.split()[0] for line in bench.table(found).splitlines()[1:]] == list(bench.PROGRAMS)
    found["detail"]["programs"]["trl_2"]["foreign_cores"] = [0.0, 0.7]
    assert "WARNING: other processes used up to 0.70 cores" in bench.table(found)


def test_both_sides_of_a_pair_get_the_same_file_sizes_and_cores():
    args = argparse.Namespace(
        data=Path("original.json"), gguf="g", hf_tokenizer="t", max_length=64, batch_size=4
    )

    def flags(name):
        words = data_programs.command(name, args, Path("w"), Path("c"))[2:]
        return {key: words[i + 1] for i, key in enumerate(words[:-1]) if key.startswith("--")}

    for peer, ours in bench.PAIRS.items():
        one, other = flags(ours), flags(peer)
        assert one.pop("--tokenizer") == "g" and other.pop("--tokenizer") == "t"
        assert one == other and one["--conversations"] == "w/rows.jsonl"
        assert one["--processes"] == peer[-1] and one["--max-length"] == "64"
    assert flags("ours_cache_hit")["--cache"] == flags("ours_cache_miss")["--cache"] == "c"
    assert flags("ours_original")["--conversations"] == "original.json"


def test_a_program_that_fails_is_an_error_with_its_last_words():
    words = "import sys; print('noise'); sys.exit('ValueError: no such piece')"
    with pytest.raises(UserError, match="exit 1: ValueError: no such piece"):
        data_programs.call([sys.executable, "-c", words])
    with pytest.raises(UserError, match=r"setup\.sh"):
        data_programs.call(["/no/python", "-c", ""])


def write_run(directory: Path, rows: list[tuple[int, float, float]]) -> Path:
    lines = [{"split": "validation", "step": 1, "loss": 1.0}]
    for step, seconds, wait in rows:
        lines.append({"split": "train", "step": step, "seconds": seconds, "wait_seconds": wait})
    (directory / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    return directory


def test_waiting_is_a_share_of_the_steps_after_the_first(tmp_path):
    found = bench.waiting(write_run(tmp_path, [(1, 60.0, 50.0), (2, 2.0, 0.0), (3, 2.0, 1.0)]))
    assert (found["ours"], found["detail"]["worst_share"]) == (0.25, 0.5)
    assert (found["detail"]["rows"], found["detail"]["worst_step"]) == (2, 3)


@pytest.mark.parametrize(
    "rows, message",
    [([(1, 1.0, 0.5)], "expected 2 or more"), ([(10, 1.0, 0), (20, 1.0, 0)], "log_every = 1")],
)
def test_runs_that_cannot_tell_are_refused(tmp_path, rows, message):
    with pytest.raises(UserError, match=message):
        bench.waiting(write_run(tmp_path, rows))


def test_a_missing_file_is_one_line_that_says_how_to_get_it(monkeypatch, capsys):
    for flags, message in [(["--data", "/none"], "extra bench"), (["--wait", "/none"], "no metr")]:
        monkeypatch.setattr(sys, "argv", ["data.py", *flags])
        assert bench.main() == BAD_INPUT
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
