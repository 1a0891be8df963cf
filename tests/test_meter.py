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
        meter.add(step, metrics(), 0.1)
        clock.now += 1000
        if step == 3:  # as before a checkpoint
            meter.flush()
    meter.flush()
    meter.close()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["wait_seconds"] for row in rows] == waits
    assert [row["step"] for row in rows] == list(range(log_every, 7, log_every))
