import json
import types

import jax.numpy as jnp
import numpy as np
import pytest

from sft.data.batches import pipeline
from sft.train import meter as meters
from sft.types import Sums


class Clock:
    """Stands where only ``advance`` moves it."""

    def __init__(self):
        self.now = 100.0

    def perf_counter(self):
        return self.now


def metrics():
    sums = Sums(jnp.asarray(6.0), jnp.asarray(3.0))
    return {"loss": sums, "correct": sums, "grad_norm": jnp.asarray(1.0)}


@pytest.mark.parametrize(
    ("log_every", "waits"), [(1, [1, 2, 4, 8, 16, 32]), (2, [3, 12, 48]), (4, [15, 48])]
)
def test_wait_seconds_are_those_of_the_steps_since_the_last_row(
    tmp_path, monkeypatch, log_every, waits
):
    """Batch n comes after 2ⁿ seconds, and each step takes 1,000."""
    clock = Clock()
    monkeypatch.setattr(meters, "time", types.SimpleNamespace(perf_counter=clock.perf_counter))
    plan = pipeline.plan_training(
        np.array([5] * 6), max_length=8, batch_size=1, epochs=1, seed=0, packed=False
    )
    meter = meters.Meter(str(tmp_path), plan, 0, log_every)

    def batches():
        for number in range(6):
            clock.now += 2**number
            yield number

    for step, batch in enumerate(meter.waiting(batches()), start=1):
        assert batch == step - 1
        clock.now += 1000
        meter.add(step, metrics(), 0.1)
        if step == 3:  # as before a checkpoint
            meter.flush()
    meter.finish()
    meter.close()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["wait_seconds"] for row in rows] == waits
    assert [row["step"] for row in rows] == sorted({*range(log_every, 7, log_every), 6})


class Pending:
    """An array that is not computed until it is asked for."""

    def is_ready(self):
        return False

    def __array__(self, dtype=None, copy=None):
        return np.asarray(1.0, dtype)

    def __float__(self):
        return 1.0


def started(tmp_path, monkeypatch, log_every=1, **options):
    clock = Clock()
    monkeypatch.setattr(meters, "time", types.SimpleNamespace(perf_counter=clock.perf_counter))
    plan = pipeline.plan_training(
        np.array([5] * 6), max_length=8, batch_size=2, epochs=1, seed=0, packed=False
    )
    return clock, meters.Meter(str(tmp_path), plan, 0, log_every, **options)


def rows(tmp_path):
    return [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]


def test_speed_is_positions_and_operations_of_one_device(tmp_path, monkeypatch):
    clock, meter = started(tmp_path, monkeypatch, devices=4, flops_per_step=6e12, peak_flops=0.5e12)
    for step in meter.waiting([1, 2]):
        clock.now += 5
        meter.add(step, metrics(), 0.1)
    meter.flush()
    for row in rows(tmp_path):
        assert row["tokens_per_second_per_device"] == 2 * 8 / 5 / 4
        assert row["mfu"] == pytest.approx(6 / 5 / 2)
        assert row["trained_tokens_per_second"] == 3 / 5


@pytest.mark.parametrize("runs_ahead", [True, False])
def test_a_row_has_the_seconds_of_its_own_step(tmp_path, monkeypatch, runs_ahead):
    """Step n takes n seconds and its batch half of one; 100 pass after steps 2 and 3."""
    clock, meter = started(tmp_path, monkeypatch)
    ends = []

    class Later(Pending):
        """Has been computed when the clock says so; who asks before that waits."""

        def is_ready(self):
            return not runs_ahead

        def __float__(self):
            return 1.0

    def fetched(tree):
        clock.now = max(clock.now, ends.pop(0))
        return tree | {"grad_norm": 1.0}

    def batches():
        for step in range(1, 7):
            clock.now += 0.5
            yield step

    monkeypatch.setattr(meters.jax, "device_get", fetched)
    busy = 0.0
    for step in meter.waiting(batches()):
        busy = max(busy, clock.now) + step
        ends.append(busy)
        if not runs_ahead:
            clock.now = busy
        meter.add(step, metrics() | {"grad_norm": Later()}, 0.1)
        if step in (2, 3):
            meter.flush()
            clock.now += 100
    meter.flush()
    wait = 0.0 if runs_ahead else 0.5  # reading ahead hides it
    expected = [1, 2 + wait, 3, 4, 5 + wait, 6 + wait]
    assert [row["seconds"] for row in rows(tmp_path)] == expected


@pytest.mark.parametrize("known", [{"flops_per_step": 1e12}, {"peak_flops": 1e12}, {}])
def test_no_utilisation_where_it_cannot_be_known(tmp_path, monkeypatch, known):
    clock, meter = started(tmp_path, monkeypatch, **known)
    for step in meter.waiting([1]):
        clock.now += 1
        meter.add(step, metrics(), 0.1)
    meter.flush()
    assert "mfu" not in rows(tmp_path)[0]


def test_saving_is_told_in_the_row_after_it_and_at_the_end(tmp_path, monkeypatch, capsys):
    clock, meter = started(tmp_path, monkeypatch, log_every=2)
    for step in meter.waiting(range(1, 7)):
        clock.now += 10
        meter.add(step, metrics(), 0.1)
        if step in (2, 3, 6):
            meter.flush()
            with meter.saving():
                clock.now += step / 10
    meter.close()
    assert [row["save_seconds"] for row in rows(tmp_path)] == pytest.approx([0, 0.5, 0])
    assert [row["seconds"] for row in rows(tmp_path)] == pytest.approx([20, 20, 20])
    assert "3 checkpoints stalled the steps for 1.10 s, 1.83% of their 60.0 s" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize(("is_ready", "seen_at"), [(True, 1), (False, 2)])
def test_the_first_finished_step_is_reported_once(tmp_path, monkeypatch, is_ready, seen_at):
    """As soon as it is known to be finished: at once where the backend does not run ahead."""
    now, calls = 0, []
    clock, meter = started(tmp_path, monkeypatch, on_first=lambda s: calls.append((s, now)))
    for step in meter.waiting([1, 2, 3]):
        now = step
        clock.now += 1
        meter.add(step, metrics() | ({} if is_ready else {"grad_norm": Pending()}), 0.1)
    assert calls == [(1, seen_at)]


def step_metrics(step):
    """Of step n: n trained tokens with a loss of 10 n each, half of them right."""
    loss = Sums(jnp.asarray(10.0 * step * step), jnp.asarray(float(step)))
    return {
        "loss": loss,
        "correct": Sums(jnp.asarray(step / 2), loss.weight),
        "grad_norm": jnp.asarray(float(step)),
    }


def take(meter, clock, steps):
    for step in meter.waiting(steps):
        clock.now += 2
        meter.add(step, step_metrics(step), step / 100)


def test_a_row_is_of_all_steps_since_the_row_before(tmp_path, monkeypatch):
    clock, meter = started(tmp_path, monkeypatch, log_every=4)
    take(meter, clock, range(1, 7))
    meter.finish()
    first, last = rows(tmp_path)
    tokens = 1 + 2 + 3 + 4
    assert first["step"] == 4 and first["trained_tokens"] == tokens
    assert first["loss"] == pytest.approx(10 * (1 + 4 + 9 + 16) / tokens)
    assert first["token_accuracy"] == pytest.approx(0.5)
    assert first["grad_norm"] == 2.5 and first["learning_rate"] == 0.04
    assert first["seconds"] == 8 and first["trained_tokens_per_second"] == tokens / 8
    assert first["tokens_per_second_per_device"] == 2 * 8 / 2
    assert last["step"] == 6 and last["loss"] == pytest.approx(10 * (25 + 36) / 11)


def test_a_run_that_goes_on_has_the_rows_of_one_that_was_not_stopped(tmp_path, monkeypatch, capsys):
    """Stopped between two rows and between two validations: neither loses the steps before."""
    values = {"loss": 1.0, "token_accuracy": 0.5}
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    for place in (whole, stopped):
        place.mkdir()
        clock, meter = started(place, monkeypatch, log_every=4)
        if place is whole:
            take(meter, clock, range(1, 7))
        else:
            take(meter, clock, range(1, 4))
            meter.flush()
            unlogged = json.loads(json.dumps(meter.unlogged))
            meter.close()
            plan = meter._plan
            meter = meters.Meter(str(place), plan, 3, 4, unlogged=unlogged)
            take(meter, clock, range(4, 7))
        meter.finish()
        meter.validation(6, values)
        meter.close()
    assert rows(whole) == rows(stopped)
    lines = [line for line in capsys.readouterr().out.splitlines() if "validation" in line]
    assert len(lines) == 2 and lines[0] == lines[1]


def test_a_validation_is_printed_beside_training_since_the_one_before(
    tmp_path, monkeypatch, capsys
):
    clock, meter = started(tmp_path, monkeypatch)
    values = {"loss": 1.25, "token_accuracy": 0.5, "exact_match": 0.25, "weight": 9.0}
    meter.validation(0, values | {"answer_loss": 0.5, "end_loss": 2.0, "prompt_loss": 4.0})
    take(meter, clock, [1, 2])
    meter.flush()
    meter.validation(2, values, "the best so far")
    take(meter, clock, [3])
    meter.flush()
    meter.validation(3, values | {"loss_se": 0.1}, "not better than epoch 0.5 (loss 1.2500)")
    assert capsys.readouterr().out.splitlines() == [
        "before the first step: validation loss 1.2500 (0.5000 in text, 2.0000 at ends of turn), "
        "token accuracy 50.0 %, exact match 25.0 %",
        "epoch 0.6667 of 1, step 2 of 3: validation loss 1.2500 (training 16.6667), token accuracy "
        "50.0 % (50.0 %), exact match 25.0 %; the best so far",
        "epoch 1 of 1, step 3 of 3: validation loss 1.2500 (training 30.0000), token accuracy "
        "50.0 % (50.0 %), exact match 25.0 %; not better than epoch 0.5 (loss 1.2500)",
    ]
