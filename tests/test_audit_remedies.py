"""Every finding that names a remedy: what it says is done, and the finding is gone."""

import json
import random
import re

import pytest
import tiny_run
from test_tokenizer import tiny_pieces

from sft import config as configs
from sft.commands import data
from sft.config.check import validate
from sft.data.tokenizer import sentencepiece

registered = tiny_run.registered
WORDS = "amber basin cedar delta ember fjord gravel harbor island jungle kettle lantern".split()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "tokenizer.model"
    path.write_bytes(sentencepiece._model_proto(tiny_pieces()))
    return path


def sentence(rng, words):
    return " ".join(rng.choice(WORDS) + str(rng.randrange(1000)) for _ in range(words))


def asked(count, seed, words=6):
    """Rows unlike those of any other seed."""
    rng = random.Random(f"rows {seed}")
    return [
        {"input_text": sentence(rng, 6), "output_text": sentence(rng, words)} for _ in range(count)
    ]


def labelled(count, seed, labels):
    rows, labels = asked(count, seed), labels.split()
    return [row | {"output_text": labels[i % len(labels)]} for i, row in enumerate(rows)]


def form(count, seed, words=40):
    """Answers that begin alike."""
    start = sentence(random.Random("form"), words)
    rows = asked(count, seed, 4)
    return [row | {"output_text": f"{start} {row['output_text']}"} for row in rows]


def audited(folder, model, sets, changes):
    """The findings of ``sft data``: (severity, text, remedy)."""
    files = {}
    for name, rows in sets.items():
        files[f"data.{name}"] = str(tiny_run.write_rows(folder / f"{name}.jsonl", rows))
    usual = {"data.max_length": 512, "data.eval_max_length": 512, "data.cache": ""}
    usual |= {"model.name": "tiny_run", "model.tokenizer": str(model)}
    config = configs.from_dict(dict(configs.flatten(configs.default())) | usual | files | changes)
    validate(config)
    report = data.main(config, str(folder / "run"))
    assert json.loads((folder / "run" / "data" / "report.json").read_text()) == report
    return [(one["severity"], one["text"], one["remedy"]) for one in report["warnings"]]


TRAIN, HELD, OTHER = asked(120, 1), asked(40, 2), asked(40, 3)
LONG = asked(120, 1)[:110] + asked(10, 4, 60)
USUAL = {"train": TRAIN, "validation": HELD}

# Sets and settings; what the finding says; what of its remedy is done to sets or settings, where
# {1}, {2} are numbers that the remedy names; and the severity that is left of it, if any.
TABLE = {
    "too long, raised": (
        {"train": LONG, "validation": HELD}, {},
        ("error", "10 rows (8.3 %) longer than", r"Raise data\.max_length \([\d,]+ holds all"),
        {"data.max_length": "{1}"}, None,
    ),
    "too long, dropped": (
        {"train": LONG, "validation": HELD}, {},
        ("error", "sft train refuses above data.max_over_long = 0.01", r"data\.over_long = 'drop'"),
        {"data.over_long": "drop"}, None,
    ),
    "too long, cut": (
        {"train": LONG, "validation": HELD}, {},
        ("error", "sft train refuses above", r"'truncate_prompt_left' or 'truncate_response'"),
        {"data.over_long": "truncate_response"}, None,
    ),
    "cut answers": (
        {"train": LONG, "validation": HELD}, {"data.over_long": "truncate_response"},
        ("error", "have no trained end of turn", r"data\.over_long = 'drop'"),
        {"data.over_long": "drop"}, None,
    ),
    "evaluation too long": (
        {"train": TRAIN, "validation": HELD + asked(2, 5, 60)}, {},
        ("error", "validation: 2 rows", r"Raise data\.eval_max_length \([\d,]+ holds all"),
        {"data.eval_max_length": "{1}"}, None,
    ),
    "given away, dropped": (
        {"train": TRAIN + HELD[:20], "validation": HELD}, {},
        ("error", "20 of 40 rows (50 %)", r'Set data\.leakage\.action = "drop"'),
        {"data.leakage.action": "drop"}, "note",
    ),
    "given away, removed": (
        {"train": TRAIN + HELD[:20], "validation": HELD}, {},
        ("error", "are given away", "remove them from one of the two"),
        {"validation": HELD[20:] + OTHER}, None,
    ),
    "refused for leaks": (
        {"train": TRAIN + HELD[:1], "validation": HELD},
        {"data.leakage.action": "error"},
        ("error", "sft train refuses above data.leakage.max_share", '"drop"'),
        {"data.leakage.action": "drop"}, None,
    ),
    "test given away": (
        USUAL | {"test": OTHER, "train": TRAIN + OTHER[:9]}, {},
        ("error", "test: 9 of 40 rows", '"drop"'),
        {"data.leakage.action": "drop"}, "note",
    ),
    "validation in test": (
        USUAL | {"test": OTHER + HELD[:5]}, {},
        ("error", "5 rows of validation (12 %) are in test too", "Remove them from one of the two"),
        {"test": OTHER}, None,
    ),
    "repeats": (
        {"train": TRAIN, "validation": HELD + HELD[:1] * 26 + HELD[1:25]}, {},
        ("warning", "50 of 90 rows (56 %) repeat earlier ones; 40 are different", "Keep each once"),
        {"validation": HELD}, None,
    ),
    "nothing left": (
        {"train": HELD[:30], "validation": HELD}, {"data.leakage.action": "drop"},
        ("error", "train: none of its 30 rows is left", r"config\.data\.dedup and \.leakage"),
        {"data.leakage.action": "report"}, None,
    ),
    "little left, by a form": (
        {"train": form(9, 6), "validation": HELD}, {"data.dedup.substring": 50},
        ("warning", "train: deduplication leaves", "lower data.dedup.template_rows"),
        {"data.dedup.template_rows": 5}, None,
    ),
    "little left, reported": (
        {"train": form(9, 6), "validation": HELD}, {"data.dedup.substring": 50},
        ("warning", "train: deduplication leaves", r'data\.dedup\.action = "report"'),
        {"data.dedup.action": "report"}, None,
    ),
    "several answers": (
        USUAL | {"train": TRAIN + [row | {"output_text": "no"} for row in TRAIN[:9]]}, {},
        ("warning", "9 prompts have several different answers", "responses_per_prompt = 1"),
        {"data.dedup.responses_per_prompt": 1}, None,
    ),
    "no validation": (
        {"train": TRAIN}, {},
        ("warning", "no validation set", r"data\.split\.validation"),
        {"data.split.validation": 0.2}, None,
    ),
    "few rows": (
        {"train": TRAIN, "validation": HELD[:9]}, {},
        ("warning", "validation: 9 rows, too few", "Have at least (20)"),
        {"validation": HELD[:20]}, None,
    ),
    "labels missing": (
        {"train": labelled(300, 7, "yes no maybe"), "validation": labelled(40, 8, "yes no")},
        {"data.reading.category": "output_text"},
        ("warning", "validation lacks 1 of train's answers: maybe", r"data\.split\.stratify"),
        {"validation": None, "data.split.stratify": "category", "data.split.validation": 0.2}, None,
    ),
    "another casing": (
        USUAL | {"validation": [{k: v.upper() for k, v in row.items()} for row in HELD]}, {},
        ("warning", "validation differs from train", r"training rows: data\.split\.validation"),
        {"validation": None, "data.split.validation": 0.3}, None,
    ),
    "test sets that share rows": (
        {"train": TRAIN, "validation": HELD, "test": OTHER + HELD[:3]}, {},
        ("error", "3 rows of validation", "Remove them from one"),
        {"validation": HELD[3:]}, None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_the_remedy_works(name, tmp_path, model):
    sets, settings, (severity, text, remedy), done, left = TABLE[name]
    found = [one for one in audited(tmp_path, model, sets, settings) if text in one[1]]
    assert [one[0] for one in found] == [severity], found
    said = re.search(remedy, found[0][2])
    assert said, found[0][2]
    changed = {key: value for key, value in done.items() if key.startswith("data.")}
    for key, value in changed.items():
        if value == "{1}":
            numbers = re.findall(r"([\d,]+) holds all", found[0][2])
            changed[key] = int(numbers[0].replace(",", ""))
    sets = sets | {key: value for key, value in done.items() if not key.startswith("data.")}
    sets = {key: rows for key, rows in sets.items() if rows is not None}
    folder = tmp_path / "again"
    folder.mkdir()
    kind = re.sub(r"[\d.,]+ %|\d[\d,]*", "", text)  # the finding whatever its numbers
    after = audited(folder, model, sets, settings | changed)
    same = [one for one in after if kind in re.sub(r"[\d.,]+ %|\d[\d,]*", "", one[1])]
    assert (
        [one[0] for one in same] == [] if left is None else [one[0] for one in same] in ([left], [])
    )
    if left:
        assert [one[0] for one in after if "which are dropped" in one[1]] == [left]
