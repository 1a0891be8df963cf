"""Every mistake ends with exit code 2 and one line: where, what was found, what to do."""

import dataclasses
import gzip
import json

import pytest
import tiny_run
from test_tokenizer import tiny_pieces
from weight_layouts import make_tree, write_hf

from sft import cli
from sft.data.tokenizer import sentencepiece as tokenizer_lib
from sft.model import specs

shared, registered = tiny_run.shared, tiny_run.registered
GOOD = json.dumps({"input_text": "a", "output_text": "b"}) + "\n"


@pytest.fixture(scope="module")
def files(shared, tmp_path_factory):
    """Damaged files of every kind, by name."""
    path = tmp_path_factory.mktemp("bad")
    text = {
        "empty.jsonl": "",
        "not_json.jsonl": GOOD + "{'input_text': 'a'}\n",
        "not_object.jsonl": GOOD + "[1, 2]\n",
        "typo.jsonl": GOOD + GOOD.replace("output_text", "output_txt"),
        "object.jsonl": GOOD + '{"input_text": "a", "output_text": {"text": "b"}}\n',
        "no_answer.jsonl": GOOD + '{"input_text": "a", "output_text": " "}\n',
        "long.jsonl": GOOD + GOOD.replace('"a"', f'"{"a " * 90}"'),
        "text.model": "this is no tokenizer",
        "text.safetensors": "this is no model at all",
        "text.gguf": "this is no model at all",
        "pointer.safetensors": "version https://git-lfs.github.com/spec/v1\n",
        "file": "not a directory",
    }
    for name, content in text.items():
        (path / name).write_text(content)
    (path / "binary.jsonl").write_bytes(b"\xff\xfe" * 40 + b"\n")
    (path / "cut.jsonl.gz").write_bytes(gzip.compress(GOOD.encode() * 99)[:40])
    weights = (shared.path / "weights.safetensors").read_bytes()
    (path / "cut.safetensors").write_bytes(weights[: len(weights) // 2])
    other = dataclasses.replace(tiny_run.SPEC, hidden=40)
    write_hf(str(path / "wider.safetensors"), other, make_tree(other))
    gemma2 = dataclasses.replace(specs.tiny("gemma2"), vocab=512)
    write_hf(str(path / "gemma2.safetensors"), gemma2, make_tree(gemma2))
    pieces = [*tiny_pieces(), *((f"zq{i}", -500.0 - i, 1) for i in range(400))]
    (path / "larger.model").write_bytes(tokenizer_lib._model_proto(pieces))
    foreign = [
        ("<turn>" if piece == "<start_of_turn>" else piece, *r) for piece, *r in tiny_pieces()
    ]
    (path / "foreign.model").write_bytes(tokenizer_lib._model_proto(foreign))
    (path / "no_weights").mkdir()
    return path


DATA = [
    ("nothere.jsonl", ["nothere.jsonl", "No such file"]),
    ("empty.jsonl", ["empty.jsonl: no rows", "JSONL"]),
    ("not_json.jsonl", ["not_json.jsonl:2", "invalid JSON", "column"]),
    ("not_object.jsonl", ["not_object.jsonl:2", "found a list", "expected one JSON object"]),
    ("typo.jsonl", ["typo.jsonl:2", "output_txt", "did you mean 'output_text'"]),
    ("object.jsonl", ["object.jsonl:2", "output_text is an object", "expected a string"]),
    ("no_answer.jsonl", ["no_answer.jsonl:2", "output_text has no visible text"]),
    ("binary.jsonl", ["binary.jsonl: text in UTF-16", "iconv -f UTF-16 -t UTF-8"]),
    ("cut.jsonl.gz", ["cut.jsonl.gz", "damaged gzip"]),
]
WEIGHTS = [
    ("nothere.safetensors", ["nothere.safetensors", "no such file", "Expected"]),
    ("cut.safetensors", ["cut.safetensors", "cut short", "Download it again"]),
    ("text.safetensors", ["text.safetensors", "not a safetensors file"]),
    ("text.gguf", ["text.gguf"]),
    ("pointer.safetensors", ["pointer.safetensors", "Git LFS pointer", "git lfs pull"]),
    ("wider.safetensors", ["wider.safetensors", "mlp", "40", "48"]),
    ("gemma2.safetensors", ["gemma2.safetensors"]),
    ("no_weights", ["no_weights", "Expected"]),
]
TOKENIZER = [
    ("nothere.model", ["nothere.model", "no such file"]),
    ("text.model", ["text.model", "not a SentencePiece model"]),
    ("foreign.model", ["foreign.model", "<start_of_turn>", "not a Gemma tokenizer"]),
    ("larger.model", ["larger.model", "pieces", "512 embedding rows", "model.tokenizer"]),
]
CASES = [
    *((f"--config.data.train={{files}}/{n}", f) for n, f in DATA),
    ("--config.data.validation={files}/typo.jsonl", ["typo.jsonl:2", "output_txt"]),
    ("--config.data.train={files}/long.jsonl", ["config.data.max_length = 32", "1 of 2", "Raise"]),
    ("--config.data.validation={files}/long.jsonl", ["config.data.eval_max_length = 64", "Raise"]),
    ("--config.data.train=", ["config.data.train is not set", "JSONL"]),
    ("--config.data.validation=", ["config.data.validation is not set"]),
    *((f"--config.model.weights={{files}}/{n}", f) for n, f in WEIGHTS),
    ("--config.model.weights=", ["config.model.weights"]),
    ("--config.model.sha256=abc123", ["weights.safetensors", "expected abc123", "model.sha256"]),
    *((f"--config.model.tokenizer={{files}}/{n}", f) for n, f in TOKENIZER),
    ("--config.model.name=gemma3_1B", ["gemma3_1B", "Did you mean 'gemma3_1b'?", "Known"]),
    ("--config.mesh.platform=tpu", ["config.mesh.platform = 'tpu'", "'cpu'", "uv sync"]),
    ("--config.mesh.tensor=3", ["config.mesh", "8 devices", "Set data"]),
    ("--config.train.batch_size=12", ["config.train.batch_size = 12", "multiple of", "8"]),
    ("--config.lora.targets=query", ["config.lora.targets = 'query'", "no projection", "q, k"]),
]


@pytest.mark.parametrize("word, fragments", CASES, ids=lambda v: v if isinstance(v, str) else "")
def test_one_line_that_helps(shared, files, tmp_path, capsys, word, fragments):
    assert shared.main("train", tmp_path / "run", word.format(files=files), "--json") == 2
    out, err = capsys.readouterr()
    assert out == ""
    said = [line for line in err.splitlines() if not line.startswith("train ")]  # the description
    assert len(said) == 1 and said[0].startswith("sft: "), err
    assert all(fragment in said[0] for fragment in fragments), err
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_tokenizer_beside_the_weights(shared, tmp_path):
    assert shared.main("data", tmp_path, "--config.model.tokenizer=") == 0


def test_no_tokenizer_beside_the_weights(shared, files, tmp_path, capsys):
    words = ["--config.model.tokenizer=", f"--config.model.weights={files}/wider.safetensors"]
    assert shared.main("data", tmp_path, *words) == 2
    assert "config.model.tokenizer is not set" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["data", "train", "eval"])
def test_run_of_another_configuration(shared, tmp_path, capsys, command):
    run = shared.copy("done", tmp_path / "run")
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    assert shared.main(command, run, "--config.optim.learning_rate=0.5") == 2
    err = capsys.readouterr().err
    assert "optim.learning_rate: 0.02 there, 0.5 here" in err and err.count("\n") == 1
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("place", ["{files}/file", "/proc/run", "{files}/file/below"])
def test_place_that_cannot_be_written(shared, files, capsys, place):
    workdir = place.format(files=files)
    assert shared.main("train", workdir) == 2
    err = capsys.readouterr().err
    assert workdir in err and err.count("\n") == 1
    assert (files / "file").read_text() == "not a directory"


def test_no_configuration(shared, tmp_path, capsys):
    words = [f"--config={tmp_path}/none.py", f"--workdir={tmp_path}"]
    assert cli.main(["sft", "train", *words]) == 2
    assert capsys.readouterr().err == f"sft: --config={tmp_path}/none.py: no such file.\n"


def test_a_corrected_mistake_runs(shared, files, tmp_path):
    assert shared.main("data", tmp_path, f"--config.data.train={files}/typo.jsonl") == 2
    assert shared.main("data", tmp_path) == 0
