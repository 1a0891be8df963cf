import json

import numpy as np
import pytest
import tiny_run
from test_sets import TOK, config_of, texts

from sft.data.chat.encoding import ANSWER, CONTEXT
from sft.data.sets import loading, training
from sft.errors import UserError

STRETCH = " ".join(f"w{i}" for i in range(40))


def written(tmp_path, name, rows):
    return str(tiny_run.write_rows(tmp_path / f"{name}.jsonl", rows))


def pair(question, answer, topic):
    return {"input_text": question, "output_text": answer, "topic": topic}


def everything(config, folder, **more):
    return training.everything(loading.Sets(config, tiny_run.SPEC, TOK), folder, **more)


@pytest.fixture
def repeated(tmp_path):
    """Rows 0 and 3 are equal; row 2 repeats a stretch of row 1's answer."""
    rows = [
        pair("first question", "first answer", "a"),
        pair("second question", f"one {STRETCH} two", "b"),
        pair("third question", f"three {STRETCH} four five six", "c"),
        pair("first  question", "first answer ", "d"),
    ]
    return written(tmp_path, "repeated", rows)


def test_a_plan_is_made_once_and_then_only_applied(tmp_path, repeated):
    config = config_of(tmp_path, {"data.train": repeated})
    split = everything(config, tmp_path)["train"]
    assert texts(split) == ["first question", "second question", "third question"]
    made = (tmp_path / "plan.json").stat().st_mtime_ns
    again = everything(config, tmp_path)["train"]
    assert again.content == split.content
    assert (tmp_path / "plan.json").stat().st_mtime_ns == made
    kept = everything(config_of(tmp_path, {"data.train": repeated, "data.dedup.exact": False}),
                      tmp_path, fresh=True)["train"]  # fmt: skip
    assert len(kept.examples) == 4


def test_a_plan_for_other_rows_or_options_is_refused(tmp_path, repeated):
    everything(config_of(tmp_path, {"data.train": repeated}), tmp_path)
    other = {"data.train": repeated, "data.dedup.substring": 10}
    with pytest.raises(UserError, match=r"config\.data\.dedup.*Run sft data again"):
        everything(config_of(tmp_path, other), tmp_path)
    written(tmp_path, "repeated", [pair("a", "b", "c")])
    with pytest.raises(UserError, match=r"training rows.*Run sft data again"):
        everything(config_of(tmp_path, {"data.train": repeated}), tmp_path)


@pytest.mark.parametrize("action", ["mask", "cut"])
def test_spans_are_found_again_in_augmented_copies(tmp_path, repeated, action):
    knobs = {"data.train": repeated, "data.dedup.substring": 30, "data.dedup.action": action}
    knobs |= {"data.dedup.drop_share": 1.0, "data.dedup.min_trained": 1}
    plain = everything(config_of(tmp_path, knobs), tmp_path, fresh=True)["train"]
    knobs |= {"data.augment.copies": 2, "data.augment.casing": 1.0}
    copied = everything(config_of(tmp_path, knobs), tmp_path, fresh=True)["train"]
    assert len(copied.examples) > len(plain.examples) == 3
    by_source = {c.source: plain.examples[i] for i, c in enumerate(plain.conversations)}
    spans = plain.plan.plan
    assert len(spans.rows) and set(spans.rows.tolist()) == {2}
    for conversation, example in zip(copied.conversations, copied.examples, strict=True):
        original = by_source[conversation.source.split(" (copy")[0]]
        answer, expected = (e.tokens[e.kinds >= CONTEXT].tolist() for e in (example, original))
        assert answer == expected
        trained = [e.kinds[e.kinds >= CONTEXT] >= ANSWER for e in (example, original)]
        assert np.array_equal(*trained)
    third = by_source[plain.conversations[2].source]
    whole = plain.plan.encoded[2]
    lost = int((whole.kinds >= ANSWER).sum() - (third.kinds >= ANSWER).sum())
    assert lost >= 30 and (
        len(whole.tokens) - len(third.tokens) == (lost if action == "cut" else 0)
    )


def leaking(tmp_path, **changes):
    question = "what is the capital of the country that lies north of the sea"
    rows = [pair(f"question {i} about {i * i}", f"answer {i}", f"t{i}") for i in range(30)]
    train = written(tmp_path, "train", [*rows, pair(question, "b", "x")])
    validation = written(tmp_path, "validation", [pair(question, "c", "y"), pair("z", "w", "v")])
    return config_of(tmp_path, {"data.train": train, "data.validation": validation} | changes)


def test_leaks_are_reported_dropped_or_an_error(tmp_path):
    found = everything(leaking(tmp_path), tmp_path, fresh=True)
    assert len(found["train"].examples) == 31 and len(found["validation"].examples) == 2
    config = leaking(tmp_path)
    training.gate(config, found["train"])
    config = leaking(tmp_path, **{"data.leakage.action": "drop"})
    dropped = everything(config, tmp_path, fresh=True)
    assert len(dropped["train"].examples) == 30
    assert dropped["validation"].content == found["validation"].content
    config = leaking(tmp_path, **{"data.leakage.action": "error"})
    with pytest.raises(
        UserError, match=r"1 training rows give away 1 of its 2 rows.*max_share = 0\.0"
    ):
        training.gate(config, everything(config, tmp_path, fresh=True)["train"])
    allowed = {"data.leakage.action": "error", "data.leakage.max_share": 0.5}
    config = leaking(tmp_path, **allowed)
    training.gate(config, everything(config, tmp_path, fresh=True)["train"])


@pytest.mark.parametrize(("max_share", "is_refused"), [(0.0, True), (0.4, True), (0.5, False)])
def test_what_validation_gives_away_of_test_has_the_same_limit(tmp_path, max_share, is_refused):
    both = pair("what is the capital of the country that lies north of the sea", "c", "y")
    changes = {"data.test": written(tmp_path, "test", [both, pair("v", "u", "t")])}
    changes |= {"data.leakage.action": "error", "data.leakage.max_share": max_share}
    changes["data.train"] = written(tmp_path, "other", [pair("q", "r", "s")])
    config = leaking(tmp_path, **changes)
    train = everything(config, tmp_path, fresh=True)["train"]
    if not is_refused:
        training.gate(config, train)
        return
    with pytest.raises(UserError, match=r"1 row of validation \(50 %\) is in test too: the epoch"):
        training.gate(config, train)


def test_near_duplicates_are_not_parted_by_a_split(tmp_path):
    words = [f"{STRETCH} {i}" for i in range(5)]
    other = [" ".join(f"{chr(97 + i)}{j}" for j in range(30)) for i in range(20)]
    rows = [pair(text, f"answer {i}", f"t{i}") for i, text in enumerate([*words, *other])]
    path = written(tmp_path, "near", rows)
    knobs = {"data.train": path, "data.split.validation": 0.3, "data.dedup.exact": False}
    found = everything(config_of(tmp_path, knobs | {"data.dedup.near": 0.7}), tmp_path, fresh=True)
    sides = [sum(t in words for t in texts(found[name])) for name in ("train", "validation")]
    assert sides in ([5, 0], [0, 5])  # their answers differ, so none is dropped


def findings(run, severity="error"):
    found = json.loads((run / "data" / "report.json").read_text())["warnings"]
    return [one["text"] for one in found if one["severity"] == severity]


def test_the_audit_reports_what_training_refuses(tmp_path, shared, capsys):
    words = [f"--config.data.validation={shared.path / 'train.jsonl'}"]
    words += ["--config.data.leakage.action=error"]
    run = tmp_path / "run"
    assert shared.main("data", run, *words) == 0
    assert any("sft train refuses above data.leakage.max_share = 0.0" in t for t in findings(run))
    report = json.loads((run / "data" / "report.json").read_text())
    assert report["dedup"]["leakage"]["sets"]["validation"]["touched"] > 0
    capsys.readouterr()
    assert shared.main("train", run, *words) == 2
    assert "config.data.leakage.max_share = 0.0" in capsys.readouterr().err
    assert not (run / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("words", "finding", "refusal"),
    [
        (
            ["--config.data.max_length=20"],
            "would lose 72 trained tokens (38 %), and sft train refuses above "
            "data.max_over_long = 0.0.",
            "max_over_long = 0.0 of the rows may be. max_length = 32 holds all. Raise it, or set",
        ),
        (
            ["--config.data.max_length=2", "--config.data.over_long=drop"],
            "96 rows (100 %) longer than data.max_length = 2; dropping them loses",
            "with config.data.over_long = 'drop' none is left. max_length = 32 holds all.",
        ),
        (
            ["--config.data.validation=TRAIN", "--config.data.leakage.action=drop"],
            "train: none of its 96 rows is left after deduplication (leak_",
            "none of 96 training rows is left (leak_",
        ),
    ],
    ids=["too many too long", "all too long", "none left"],
)
def test_the_audit_is_whole_where_training_is_refused(
    words, finding, refusal, tmp_path, shared, capsys
):
    words = [word.replace("TRAIN", str(shared.path / "train.jsonl")) for word in words]
    run = tmp_path / "run"
    assert shared.main("data", run, *words, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert any(finding in text for text in findings(run)), findings(run)
    assert report["sets"]["train"]["rows"] == (60 if "20" in words[0] else 0)
    assert (run / "data" / "report.html").stat().st_size > 5000
    assert shared.main("data", run, *words, "--strict") == 2
    assert findings(run)[0] in capsys.readouterr().err
    assert shared.main("train", run, *words) == 2
    lines = capsys.readouterr().err.splitlines()
    *notes, said = lines
    assert refusal in said and all(note.startswith("note: config.") for note in notes), lines
    assert not (run / "metrics.jsonl").exists()


def test_training_warns_of_what_it_reads(tmp_path, shared, capsys):
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "w1"}]
    rows = [{"messages": turns, "system": "Be kind."}] * 3 + [{"messages": turns}] * 13
    words = [f"--config.data.train={written(tmp_path, 'beside', rows)}"]
    assert shared.main("train", tmp_path / "run", *words) == 0
    lines = capsys.readouterr().err.splitlines()
    (said,) = [line for line in lines if line.startswith("warning: train: ")]
    assert "'system'" in said and "3 " in said


def test_strict_fails_after_writing_everything(tmp_path, shared, capsys):
    run, held = tmp_path / "run", [pair(f"{i} {'z' * i}", f"{i}", "") for i in range(20)]
    words = [f"--config.data.validation={written(tmp_path, 'own', held)}", "--config.data.test="]
    assert shared.main("data", run, *words, "--strict") == 0
    words.append("--config.data.max_length=20")
    capsys.readouterr()
    assert shared.main("data", run, *words, "--strict", "--json") == 2
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert report == json.loads((run / "data" / "report.json").read_text())
    line = err.splitlines()[-1]
    errors = [one for one in report["warnings"] if one["severity"] == "error"]
    assert line.startswith("sft: ") and errors[0]["text"] in line
    assert shared.main("data", run, *words) == 0
    assert shared.main("train", run, "--strict") == 2
    assert "--strict is of sft data" in capsys.readouterr().err


shared, registered = tiny_run.shared, tiny_run.registered


def test_rows_are_tokenised_once(tmp_path, repeated, monkeypatch):
    calls, encode_all = [], loading.examples.encode_all
    monkeypatch.setattr(
        loading.examples, "encode_all", lambda *a, **k: calls.append(1) or encode_all(*a, **k)
    )
    split = everything(config_of(tmp_path, {"data.train": repeated}), tmp_path)["train"]
    assert len(split.examples) == 3 and len(calls) == 1
