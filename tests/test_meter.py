import json
import types

import jax.numpy as jnp
import numpy as np
import pytest

from sft.data import pipeline
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
    ("log_every", "waits"), [(1, [1, 2, 4, 8, 16, 32]), (2, [3, 12, 48]), (4, [15])]
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
    meter.flush()
    meter.close()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["wait_seconds"] for row in rows] == waits
    assert [row["step"] for row in rows] == list(range(log_every, 7, log_every))


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
    assert [row["seconds"] for row in rows(tmp_path)] == [10, 10, 10]
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
