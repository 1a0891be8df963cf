"""The diagnosis of runs that were really trained: each shows its pattern, and no other."""

import json

import pytest
import tiny_run
from diagnosed_runs import CASES, compiled, trained

from sft.report import diagnosis, terminal
from sft.report.diagnosis import curves, history
from sft.report.load import load_run

registered, compiled = tiny_run.registered, compiled

# Of each trained run, the findings that it must have. It must have no others.
EXPECTED = {
    "healthy": set(),
    "overfitting": {"overfitting"},
    "suboptimal": {"suboptimal"},
    "slow": {"not_moving"},
    "no_gradient": {"not_moving"},
    "diverged": {"diverged"},
    "wrong_weights": {"large_start"},
    "cut": {"cut"},
    "other": {"distributions"},
    "small": {"small_validation"},
    "disagreement": {"disagreement", "overfitting"},
}
QUICK = ("healthy", "overfitting")  # of the others, each takes some seconds to compile and train


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in CASES]
)
def test_trained_runs_show_their_pattern_and_no_other(compiled, name):
    """One row of the matrix of runs and rules."""
    run = load_run(trained(compiled, name))
    found = {finding.name for finding in diagnosis.diagnose(run).findings}
    assert found == EXPECTED[name], terminal.render(run)
    if name == "overfitting":
        finding = curves.overfitting(run)
        losses = {epoch.number: epoch.loss for epoch in history.tuned(run)}
        best = min(losses, key=losses.get)
        assert f"from epoch {best + 1:g} on" in finding.sentence
        assert f"{losses[best]:.4f} at epoch {best:g}" in finding.sentence
        assert json.loads((run.path / "selection.json").read_text())["epoch"] == best
