import json
import math
import re
import shutil
import signal
import struct
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tiny_run
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tiny import scored

from sft import session
from sft.data.batches import pipeline
from sft.data.chat.encoding import ANSWER, CONTEXT, END, PROMPT, SCAFFOLD, Example
from sft.data.sets import loading
from sft.mesh import sharding
from sft.train import loop, optim, validation
from sft.train.steps import make_steps

shared, registered = tiny_run.shared, tiny_run.registered
EPOCH_ENDS, TOTAL = [8, 16, 24], 24


def final(run):
    """Every array of the last checkpoint."""
    return ocp.PyTreeCheckpointer().restore(run / "checkpoints" / str(TOTAL) / "state")


def check_equals_uninterrupted(project, run):
    assert project.rows(run) == project.rows("done")
    ours, theirs = final(run), final(project.path / "done")
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    assert jax.tree.all(jax.tree.map(np.array_equal, ours, theirs))
    assert any(np.any(x) for x in jax.tree.leaves(ours["trainable"]))
    chosen = [json.loads((p / "selection.json").read_text()) for p in (run, project.path / "done")]
    assert chosen[0] == chosen[1]
    assert (run / "DONE").exists()


def wait_until(condition, process, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.02)


def lines(path):
    return path.read_text().count("\n") if path.exists() else 0


def test_metrics_of_a_whole_run(shared):
    validation, train = (shared.rows("done", split) for split in ("validation", "train"))
    assert [row["step"] for row in validation] == [0, *EPOCH_ENDS]
    assert [row["step"] for row in train] == list(range(1, TOTAL + 1))
    assert [row["epoch"] for row in validation] == [0, 1, 2, 3]
    assert all(
        math.isfinite(v) for row in validation + train for v in row.values() if v != row["split"]
    )
    assert validation[-1]["loss"] < 0.7 * validation[0]["loss"]
    report = json.loads((shared.path / "done" / "data" / "report.json").read_text())["sets"]
    epochs = [sum(r["trained_tokens"] for r in train[i : i + 8]) for i in (0, 8, 16)]
    assert epochs == [report["train"]["trained_tokens"]] * 3
    assert validation[0]["weight"] == report["validation"]["trained_tokens"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_preempted_and_resumed_equals_uninterrupted(shared, tmp_path, number):
    run = tmp_path / "run"
    process = shared.process("train", run, "--json", SLOW_BATCHES="1")
    wait_until(lambda: lines(run / "metrics.jsonl") >= 4, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 42, err
    assert (out, "Traceback" in err) == ("", False)
    stopped = int(re.search(rf"{number.name} at step (\d+) of {TOTAL}", err)[1])
    assert (run / "checkpoints" / str(stopped)).is_dir() and stopped not in (0, TOTAL)
    assert shared.rows(run) == [r for r in shared.rows("done") if r["step"] <= stopped]
    assert not (run / "DONE").exists()
    assert [step for step in scalars(run)["train/loss"]] == list(range(1, stopped + 1))
    if number is signal.SIGTERM:
        process = shared.process("train", run, "--json")
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert json.loads(out) == json.loads((run / "selection.json").read_text())
    else:
        assert shared.main("train", run) == 0
    check_equals_uninterrupted(shared, run)
    assert set(scalars(run)["train/loss"]) == set(range(1, TOTAL + 1))


def test_killed_and_resumed_equals_uninterrupted(shared, tmp_path):
    run = tmp_path / "run"
    process = shared.process("train", run, "--config.train.save_every=3", SLOW_BATCHES="1")
    wait_until(lambda: (run / "checkpoints" / "6").exists(), process)
    process.kill()
    process.communicate()
    assert shared.main("train", run, "--config.train.save_every=5") == 0
    check_equals_uninterrupted(shared, run)


def test_stopped_before_the_first_checkpoint(shared, tmp_path, monkeypatch):
    def crash(*args, **kwargs):
        raise RuntimeError("crash")

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "train_batches", crash)
        assert shared.main("train", tmp_path) == 1
        assert shared.main("train", tmp_path) == 1
    assert shared.main("train", tmp_path) == 0
    check_equals_uninterrupted(shared, tmp_path)


def test_stopped_after_the_last_checkpoint(shared, tmp_path):
    run = shared.copy("done", tmp_path / "run")
    for name in ("DONE", "selection.json"):
        (run / name).unlink()
    assert shared.main("train", run) == 0
    check_equals_uninterrupted(shared, run)


def test_damaged_newest_checkpoint_then_the_one_before(shared, tmp_path, capsys):
    run = shared.copy("done", tmp_path / "run")
    (run / "DONE").unlink()
    shutil.rmtree(run / "checkpoints" / "24" / "state")
    assert shared.main("train", run) == 2
    assert "checkpoints/24: cannot be restored" in capsys.readouterr().err
    shutil.rmtree(run / "checkpoints" / "24")
    assert shared.main("train", run) == 0
    check_equals_uninterrupted(shared, run)


def test_a_finished_run_is_left_alone(shared, tmp_path, monkeypatch):
    run = shared.copy("done", tmp_path / "run")
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.name != "selection.json"}
    monkeypatch.setattr(session, "params", None)  # would fail if called
    assert shared.main("train", run) == 0
    after = {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.name != "selection.json"}
    assert {**after, run: 0} == {**before, run: 0}


def test_a_profiled_run_is_the_same_run_with_a_trace(shared, tmp_path, capsys):
    assert shared.main("train", tmp_path, "--profile") == 0
    said = capsys.readouterr().out
    assert len(list(tmp_path.glob("profile/plugins/profile/*/*.xplane.pb"))) == 1
    assert shared.rows(tmp_path) == shared.rows("done")
    first = json.loads((tmp_path / "environment.json").read_text())["first_step"]
    assert first["step"] == 1 and f"step 1 finished {first['seconds']:.1f} s after" in said
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    train = [row for row in map(json.loads, lines) if row["split"] == "train"]
    for row in train:
        positions = row["tokens_per_second_per_device"] * row["seconds"] * jax.device_count()
        assert positions == pytest.approx(8 * 32)
    # One row follows each of the first two saves; the third is told at the end.
    assert [row["step"] for row in train if row["save_seconds"] > 0] == [9, 17]
    assert "saving 3 checkpoints stalled the steps for" in said


def test_loss_that_is_not_finite_stops_the_run(shared, tmp_path, capsys):
    assert shared.main("train", tmp_path, "--config.optim.learning_rate=1e30") == 2
    error = capsys.readouterr().err
    found = re.search(r"sft: step (\d+): loss .* training examples \[([\d, ]+)\].*\n$", error)
    step, named = int(found[1]), [int(i) for i in found[2].split(",")]
    assert "config.optim.learning_rate" in error and "Traceback" not in error
    plan = task(shared).plan
    assert named == sorted(i for row in plan.rows[(step - 1) * 8 : step * 8] for i in row)
    assert list((tmp_path / "checkpoints").iterdir()) == []
    assert [row["step"] for row in shared.rows(tmp_path)] == list(range(step))


def test_validation_that_is_not_finite_stops_the_run(shared, tmp_path, capsys, monkeypatch):
    values = iter([1.0, 2.0, math.nan])
    fake = lambda *_: {"loss": next(values), "token_accuracy": 0.0, "weight": 1.0}  # noqa: E731
    monkeypatch.setattr(validation, "validate", fake)
    assert shared.main("train", tmp_path) == 2
    assert "step 16: validation loss nan; this step is not saved" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["8"]


def task(project):
    config = project.values()
    tok = session.tokenizer(config, tiny_run.SPEC)
    splits = loading.Sets(config, tiny_run.SPEC, tok).load(("train", "validation"))
    train, validation = (split.examples for split in splits.values())
    sizes = {"max_length": 32, "batch_size": 8, "epochs": 3, "seed": 0, "packed": True}
    return loop.Task(train, validation, pipeline.plan_training(train.lengths, **sizes))


def test_validation_depends_on_neither_batch_size_nor_packing(shared):
    base = shared.values()
    mesh = sharding.make_mesh(base)
    steps = make_steps(base, tiny_run.SPEC, optim.make(base.optim, TOTAL), mesh)
    params = session.params(base, tiny_run.SPEC, steps.params_sharding)
    state, frozen = steps.init(jax.random.key(0), params)
    found = task(shared).validation

    def loss(size):
        config = shared.values(eval__batch_size=size, data__pack=False)
        return validation.validate(config, steps, state.trainable, frozen, found)

    at_start = shared.rows("done", "validation")[0]
    for size in (1, 8, 20):
        assert loss(size)["loss"] == pytest.approx(at_start["loss"], rel=1e-6)
        assert loss(size)["weight"] == at_start["weight"]
    sizes = {"max_length": 64, "batch_size": 8, "epochs": 1, "seed": 0, "packed": True}
    rows = pipeline.plan_training(found.lengths, **sizes).rows
    batch = pipeline.make_batch([[found[i] for i in row] for row in rows], 64)
    packed = scored(steps, state.trainable, frozen, validation.place(batch, steps))
    assert float(packed["loss"].mean()) == pytest.approx(at_start["loss"], rel=1e-6)


def test_ends_of_turn_are_told_apart_from_text(shared):
    """What they cost is what a set loses in which they are not trained."""
    config = shared.values(eval__batch_size=3)
    steps = make_steps(
        config, tiny_run.SPEC, optim.make(config.optim, TOTAL), sharding.make_mesh(config)
    )
    params = session.params(config, tiny_run.SPEC, steps.params_sharding)
    state, frozen = steps.init(jax.random.key(0), params)
    turns = [[7], [8, 9], [10, 11, 12, 13, 14]]
    both = [
        Example(
            np.array([2, 5, *ids, 1, 3, *ids, 1], np.int32),
            np.array(
                [SCAFFOLD, PROMPT, *[ANSWER] * len(ids), END, PROMPT, *[ANSWER] * len(ids), END],
                np.uint8,
            ),
        )
        for ids in turns
    ]
    no_ends = [
        Example(row.tokens, np.where(row.kinds == END, CONTEXT, row.kinds).astype(np.uint8))
        for row in both
    ]
    scored = [
        validation.by_example(config, steps, state.trainable, frozen, rows)
        for rows in (both, no_ends)
    ]
    assert scored[0].ends.tolist() == [2, 2, 2] and scored[1].ends.tolist() == [0, 0, 0]
    text = scored[0].nll - scored[0].end_nll
    np.testing.assert_allclose(text, scored[1].nll, rtol=1e-6)
    found = validation.summary(scored[0])
    assert found["answer_loss"] == pytest.approx(scored[1].nll.sum() / 16)
    assert found["end_loss"] == pytest.approx(scored[0].end_nll.sum() / 6)
    assert found["loss"] == pytest.approx((16 * found["answer_loss"] + 6 * found["end_loss"]) / 22)


def scalars(run):
    """``{tag: {step: value}}`` of the event files as TensorBoard shows them."""
    found = {}
    for path in sorted(run.glob("events.out.tfevents.*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + length])
            at += 16 + length
            if event.session_log.status == SessionLog.START:
                found = {
                    t: {s: v for s, v in x.items() if s < event.step} for t, x in found.items()
                }
            for value in event.summary.value:
                found.setdefault(value.tag, {})[event.step] = value.simple_value
    return found


def test_tensorboard_shows_the_same_numbers(shared):
    found = scalars(shared.path / "done")
    for row in shared.rows("done"):
        for name in row.keys() - {"split", "step", "epoch"}:
            assert found[f"{row['split']}/{name}"][row["step"]] == pytest.approx(
                row[name], rel=1e-6
            )
