"""Which steps are traced, and that a trace is closed however a run ends."""

import jax
import pytest

from sft.train import profile


@pytest.fixture
def calls(monkeypatch):
    seen = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda where: seen.append(("start", where)))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: seen.append("stop"))
    return seen


def test_steps_3_to_5_lie_within_the_trace(calls, capsys, tmp_path):
    for batch in profile.traced(range(9), str(tmp_path)):
        calls.append(batch + 1)
    where = str(tmp_path / "profile")
    # Step 6 is dispatched within it: only then has the loop read the metrics of step 5.
    assert calls == [1, 2, ("start", where), 3, 4, 5, 6, "stop", 7, 8, 9]
    assert f"{where}: trace of steps 3 to 5" in capsys.readouterr().out


@pytest.mark.parametrize("count", [3, 6])
def test_a_short_run_closes_its_trace(calls, count):
    assert list(profile.traced(range(count), "x")) == list(range(count))
    assert calls[-1] == "stop" and len(calls) == 2


@pytest.mark.parametrize("count", [0, 2])
def test_a_very_short_run_has_none(calls, count):
    assert list(profile.traced(range(count), "x")) == list(range(count))
    assert calls == []


def test_a_run_that_is_stopped_closes_its_trace(calls):
    batches = profile.traced(range(9), "x")
    for _ in range(4):
        next(batches)
    batches.close()
    assert calls == [("start", "x/profile"), "stop"]
