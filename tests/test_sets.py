import itertools
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import test_tokenizer
import tiny_run

from sft import config as configs
from sft.config.check import validate
from sft.data.read import records
from sft.data.sets import loading, sources, training
from sft.errors import UserError

TOK = test_tokenizer.tiny()


def rows(count, words=1):
    return [
        {"input_text": f"q{i} " + "a " * words, "output_text": f"b{i}", "topic": f"t{i // 4}"}
        for i in range(count)
    ]


def config_of(tmp_path, changes=None, count=40):
    path = tiny_run.write_rows(tmp_path / "rows.jsonl", rows(count))
    values = {"data.train": str(path), "data.reading.group": "topic", "data.cache": ""}
    config = configs.from_dict(dict(configs.flatten(configs.default())) | values | (changes or {}))
    validate(config)
    return config


def load(config, *names):
    with tempfile.TemporaryDirectory() as folder:
        found = training.everything(
            loading.Sets(config, tiny_run.SPEC, TOK), Path(folder), fresh=True
        )
    return {name: found[name] for name in names}


def texts(split):
    return [c.turns[0].text for c in split.conversations]


def test_a_cut_takes_whole_groups_and_loses_no_row(tmp_path):
    config = config_of(tmp_path, {"data.split.validation": 0.2, "data.split.test": 0.1})
    found = load(config, "train", "validation", "test")
    parts = [{c.group for c in split.conversations} for split in found.values()]
    assert [len(split.conversations) for split in found.values()] == [28, 8, 4]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
    assert sorted(itertools.chain(*map(texts, found.values()))) == sorted(
        r["input_text"] for r in rows(40)
    )
    alone = load(config, "validation")["validation"]
    assert alone.content == found["validation"].content


TRAINING_KNOBS = {
    "seed": 7,
    "data.max_length": 16,
    "data.over_long": "drop",
    "data.max_over_long": 0.5,
    "data.train_on": "last",
    "data.pack": False,
    "data.reading.weight": 2.0,
    "data.augment.copies": 2,
    "data.augment.casing": 1.0,
    "data.augment.whitespace": 1.0,
    "data.dedup.exact": False,
    "data.dedup.substring": 5,
    "data.leakage.action": "drop",
    "train.batch_size": 4,
    "train.epochs": 9,
}


@pytest.mark.parametrize("key", TRAINING_KNOBS)
def test_training_knobs_leave_the_evaluated_sets_alone(tmp_path, key):
    cut = {"data.split.validation": 0.2, "data.split.test": 0.1}
    usual = load(config_of(tmp_path, cut), "validation", "test")
    more = {"data.max_over_long": 1.0, "data.augment.casing": 0.5} | {key: TRAINING_KNOBS[key]}
    turned = load(config_of(tmp_path, cut | more), "validation", "test")
    assert turned["validation"].content == usual["validation"].content
    assert turned["test"].content == usual["test"].content


def test_knobs_of_augmentation_and_length_do_change_training(tmp_path):
    usual = load(config_of(tmp_path), "train")["train"]
    more = {"data.augment.copies": 1, "data.augment.casing": 1.0}
    augmented = load(config_of(tmp_path, more), "train")["train"]
    assert augmented.augmented["made"] + augmented.augmented["unchanged"] == 40
    assert len(augmented.examples) == 40 + augmented.augmented["made"] > 40
    assert augmented.report["augmented"] == augmented.augmented
    shorter = usual.examples.lengths.max() - 2
    more = {"data.max_length": int(shorter), "data.over_long": "drop"}
    cut = load(config_of(tmp_path, more), "train")["train"]
    over = usual.examples.lengths - 1 > shorter
    assert cut.fit["over"] == cut.fit["dropped"] == over.sum() > 0
    assert np.array_equal(cut.kept, np.flatnonzero(~over))
    assert texts(cut) == [t for t, long in zip(texts(usual), over, strict=True) if not long]


def test_sources_have_columns_templates_and_weights_of_their_own(tmp_path):
    table = tmp_path / "faq.csv"
    table.write_text('question,answer,lang\n"a, b",c,French\nd,e,German\n')
    sources = {
        "data.train": f"faq,{tmp_path / 'rows.jsonl'}",
        "data.sources.faq.path": str(table),
        "data.sources.faq.prompt": "question",
        "data.sources.faq.response": "answer",
        "data.sources.faq.template": "In {lang}: {prompt}",
        "data.sources.faq.group": "",
        "data.sources.faq.instruction": "Be brief.",
        "data.sources.faq.weight": 3.0,
    }
    config = config_of(tmp_path, sources)
    split = load(config, "train")["train"]
    assert texts(split)[:2] == ["In French: a, b", "In German: d"]
    assert [c.system for c in split.conversations][:3] == ["Be brief.", "Be brief.", None]
    assert split.conversations[1].source == f"{table}:3"
    origins, passes = loading.weights(split)
    assert origins.tolist() == [0, 0] + [1] * 40 and passes.tolist() == [3.0, 1.0]
    stored = json.loads(json.dumps(dict(configs.flatten(config))))
    assert dict(configs.flatten(configs.from_dict(stored))) == dict(configs.flatten(config))


@pytest.mark.parametrize(
    "changes, fragments",
    [
        ({"data.train": ""}, ["config.data.train, validation and test are all empty"]),
        ({"data.train": "a.jsonl,,b.jsonl"}, ["config.data.train", "between commas"]),
        ({"data.train": "/nowhere/x.jsonl"}, ["/nowhere/x.jsonl"]),
        ({"data.sources.faq.prompt": "q"}, ["data.sources.faq.path: missing"]),
        ({"data.sources.faq.path": "f", "data.sources.faq.promt": "q"}, ["promt", "'prompt'"]),
        ({"data.sources.a/b.path": "f"}, ["data.sources.a/b", "letters"]),
        ({"data.reading.repair": "leading_modle"}, ["leading_modle", "'leading_model'"]),
        ({"data.reading.group_regex": "("}, ["data.reading.group_regex", "'('"]),
        ({"data.split.test": 0.1, "data.test": "t.jsonl"}, ["data.split.test", "t.jsonl"]),
        ({"data.split.test": 0.5, "data.split.validation": 0.5}, ["leave no row"]),
        ({"data.split.stratify": "topic"}, ["data.split.stratify", "category"]),
    ],
)
def test_errors_name_the_key(tmp_path, changes, fragments):
    with pytest.raises(UserError) as caught:
        load(config_of(tmp_path, changes), "train")
    assert all(fragment in str(caught.value) for fragment in fragments), caught.value
    assert "\n" not in str(caught.value)


def test_the_report_keeps_what_the_audit_found_until_the_data_change(tmp_path):
    path = tmp_path / "data" / "report.json"
    read = lambda: json.loads(path.read_text())  # noqa: E731
    split = load(config_of(tmp_path), "train")
    loading.write_report(tmp_path, split)
    path.write_text(json.dumps(read() | {"skew": [1]}))
    loading.write_report(tmp_path, split)
    assert read()["skew"] == [1] and read()["sets"]["train"]["rows"] == 40
    loading.write_report(tmp_path, load(config_of(tmp_path, count=39), "train"))
    assert "skew" not in read() and read()["sets"]["train"]["rows"] == 39


def test_production_prompts_need_no_answers(tmp_path):
    path = tiny_run.write_rows(tmp_path / "p.jsonl", [{"input_text": "hello"}] * 3)
    assert sources.production(config_of(tmp_path)) is None
    found = sources.production(config_of(tmp_path, {"data.production": str(path)}))
    assert [c.turns[-1].role for c in found.conversations] == ["user"] * 3


def directions(path, *numbers):
    """A unit vector for each number, the same for the same."""
    np.save(path, np.eye(max(numbers) + 1, dtype=np.float32)[list(numbers)])
    return str(path)


def test_rows_alike_by_embedding_stay_in_one_split_and_one_is_trained(tmp_path):
    alike = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9] * 4
    changes = {
        "data.reading.group": "",
        "data.split.validation": 0.3,
        "data.dedup.embeddings": directions(tmp_path / "e.npy", *alike),
    }
    found = load(config_of(tmp_path, changes), "train", "validation")
    numbers = {
        name: [int(text.split()[0][1:]) % 10 for text in texts(split)]
        for name, split in found.items()
    }
    assert len(numbers["validation"]) == 12 and len(set(numbers["validation"])) == 3
    assert sorted(numbers["train"] + [*set(numbers["validation"])]) == list(range(10))
    reasons = {reason.code for reason in found["train"].plan.plan.reasons.values()}
    assert reasons == {"embedding"} and len(found["train"].plan.plan.reasons) == 21


def test_embeddings_are_of_all_rows_read_the_rejected_too(tmp_path):
    config = config_of(
        tmp_path,
        {
            "data.dedup.embeddings": directions(tmp_path / "e.npy", 0, 1, 2, 0),
            "data.max_rejected": 1.0,
        },
        count=3,
    )
    with open(config.data.train, "a") as file:
        file.write(json.dumps(rows(4)[3]) + "\n")
    lines = Path(config.data.train).read_text().splitlines()
    lines[1] = "{"
    Path(config.data.train).write_text("\n".join(lines) + "\n")
    config.data.validation = str(tiny_run.write_rows(tmp_path / "held.jsonl", rows(1)))
    assert [text.split()[0] for text in texts(load(config, "train")["train"])] == ["q0", "q2"]
    config.data.dedup.embeddings = directions(tmp_path / "few.npy", 0, 1, 2)
    with pytest.raises(UserError, match=r"few.npy: found \(3, 3\), expected \(4, width\)"):
        load(config, "train")


def test_without_clusters_groups_keep_their_names():
    given = [
        records.Conversation((), None, f"a:{i}", group=g) for i, g in enumerate(["x", "", "x"])
    ]
    assert sources.grouped(given, np.arange(3)) == given
