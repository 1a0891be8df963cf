"""The diagnosis: every rule at its threshold."""

import math
from pathlib import Path

import pytest
import tiny_run
from test_report import parse

from sft.report import diagnosis, html, terminal
from sft.report.diagnosis import choice, curves, data, history
from sft.report.load import Run

registered = tiny_run.registered


def course(train, validation, config=None, report=None, selection=None) -> Run:
    """A run of these losses: ``train`` by step, ``validation`` by epoch of ``train`` / epochs."""
    steps = len(train) // max(len(validation) - 1, 1)
    rows = [
        {"split": "train", "step": i + 1, "epoch": (i + 1) / steps, "grad_norm": 1.0}
        | {"learning_rate": 1e-3, "trained_tokens": 100.0}
        | (value if isinstance(value, dict) else {"loss": value})
        for i, value in enumerate(train)
    ]
    epochs = [
        {"split": "validation", "step": i * steps, "epoch": float(i), "weight": 400.0}
        | {"token_accuracy": 0.5, "loss_se": 0.05}
        | (value if isinstance(value, dict) else {"loss": value})
        for i, value in enumerate(validation)
    ]
    nothing = {key: {} for key in ("environment", "evals", "predictions", "suites")}
    return Run(
        path=Path("run"),
        fingerprint="",
        config=config or {"model.name": "gemma3_270m", "train.epochs": len(validation) - 1},
        data=report or {},
        train=rows,
        validation=epochs,
        selection=selection,
        summary=None,
        done=True,
        **nothing,
    )


FALLING = [3.0, 2.0, 1.0, 0.9, 0.8, 0.8]


def test_a_good_course_has_no_finding_and_says_what_was_looked_at():
    found = diagnosis.diagnose(course(FALLING, [3.0, 1.0, 0.6, 0.59]))
    assert found.findings == []
    assert found.summary.startswith("Nothing stands out. Checked: a run that diverged, ")
    assert "the sets were not compared (sft data)" in found.summary
    compared = diagnosis.diagnose(course(FALLING, [3.0, 1.0, 0.6, 0.59], report={"skew": []}))
    assert "Not all" not in compared.summary
    nothing = diagnosis.diagnose(course([], []))
    assert "no step is logged; no epoch is finished" in nothing.summary


@pytest.mark.parametrize(
    ("last", "found"),
    # The noise is 0.05, and 2 % of the fall from 3 to 1 is 0.04.
    [(1.0, True), (1.14, True), (1.16, False), (1.3, False)],
)
def test_suboptimal_if_the_last_epoch_still_falls_beyond_noise(last, found):
    run = course(FALLING, [3.0, 2.0, 1.2, last])
    assert (curves.suboptimal(run) is not None) == found


def test_suboptimal_says_from_where_to_where_and_what_to_try():
    config = {"optim.learning_rate": 1e-4, "train.epochs": 3}
    finding = curves.suboptimal(course(FALLING, [3.0, 2.0, 1.5, 1.0], config))
    assert "from 1.5000 at epoch 2 to 1.0000 at epoch 3: 25 % of the whole fall" in finding.sentence
    assert "config.train.epochs = 3" in finding.remedy and "try 0.0003" in finding.remedy
    # Training that stands still is not cured by more of it.
    assert curves.suboptimal(course([3, 2, 1, 1, 1, 1], [3.0, 2.0, 1.5, 1.0])) is None
    assert curves.suboptimal(course(FALLING, [3.0, 1.0])) is not None  # one epoch


@pytest.mark.parametrize(("rise", "found"), [(0.09, False), (0.11, True)])
def test_overfitting_if_validation_rises_by_two_standard_errors(rise, found):
    run = course(FALLING, [3.0, 1.0, 1.0 + rise / 2, 1.0 + rise])
    assert (curves.overfitting(run) is not None) == found


def test_overfitting_names_the_epoch_the_amount_and_the_noise():
    finding = curves.overfitting(course(FALLING, [3.0, 1.0, 1.1, 1.25]))
    assert "Overfitting from epoch 2 on: validation loss rose from 1.0000" in finding.sentence
    assert "to 1.2500 at epoch 3 (+25 %, 5.0 standard errors)" in finding.sentence
    assert "training loss fell from 2.5000 to 0.8000" in finding.sentence
    assert "tune for 1 epochs" in finding.remedy
    # Training that rises too is no overfitting.
    assert curves.overfitting(course([1, 1, 2, 2, 3, 3], [3.0, 1.0, 1.1, 1.25])) is None
    # Nor is a training loss that falls from where it went astray to.
    assert curves.overfitting(course([9, 9, 8, 8, 7, 7], [3.0, 1.0, 1.1, 1.25])) is None
    # Without a known error, nothing is read into a rise.
    unknown = [{"loss": v, "loss_se": None, "weight": None} for v in (3.0, 1.0, 1.1, 1.25)]
    assert curves.overfitting(course(FALLING, unknown)) is None


def test_an_error_that_was_not_logged_is_guessed_from_the_tokens():
    assert history.standard_error({"loss": 2.0, "weight": 400.0}) == pytest.approx(0.1)
    assert history.standard_error({"loss": 2.0, "weight": 400.0, "loss_se": 0.3}) == 0.3
    assert history.standard_error({"loss": 2.0}) == math.inf


@pytest.mark.parametrize(
    ("train", "validation", "said"),
    [
        ([{"loss": 3.0, "learning_rate": 0.0}] * 4, [3.0, 3.0], "learning rate was 0 at all 4"),
        ([{"loss": 3.0, "grad_norm": 0.0}] * 4, [3.0, 3.0], "gradient norm was 0 at all 4"),
        ([3.0, 3.1, 3.0, 3.1], [3.0, 2.99, 2.98], "no loss changed by 1.0 %"),
        ([3.0, 3.0, 2.9, 2.9], [3.0, 2.99, 2.98], None),  # training moves
        ([3.0, 3.1, 3.0, 3.1], [3.0, 2.99, 2.96], None),  # validation moves
        ([0.05, 0.05, 0.05, 0.05], [0.05, 0.05, 0.05], None),  # nothing to learn
    ],
)
def test_not_moving(train, validation, said):
    finding = curves.not_moving(course(train, validation))
    assert (finding is None) if said is None else said in finding.sentence


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ([2.0, math.nan, 2.0], "not finite at step 2: the run diverged"),
        ([2.0, 1.0, 3.0], "was 2.0000 at step 1 and 3.0000 in steps 3 to 3"),
        ([2.0, 9.0, 1.0], None),
        ([2.0, 1.0, 2.3], None),  # within two standard errors of 100 tokens, 0.4
    ],
)
def test_diverged(train, said):
    finding = curves.diverged(course(train, [2.0, 1.0]))
    assert (finding is None) if said is None else said in finding.sentence


@pytest.mark.parametrize(
    ("model", "loss", "found"),
    [
        ("gemma3_270m", 9.9, False),
        ("gemma3_270m", 10.1, True),
        ("tiny_run", 6.8, False),  # ln 512 is 6.24, and a tenth more 6.86
        ("tiny_run", 6.9, True),
        ("a model of tomorrow", 9.9, False),
        ("a model of tomorrow", 10.1, True),
    ],
)
def test_large_start(model, loss, found):
    run = course([loss, 2.0], [loss, 2.0], {"model.name": model})
    assert (data.large_start(run) is not None) == found


def test_large_start_is_that_of_the_first_step():
    run = course([11.0, 2.0], [11.0, 2.0])
    assert data.large_start(run)
    del run.train[0]
    assert data.large_start(run) is None
    assert "the first step is not logged" in diagnosis.diagnose(run).summary


@pytest.mark.parametrize(
    ("loss", "end_loss", "ends", "prompt", "text"),
    [
        (20.0, 35.0, 50, 4.0, None),  # a label of one token, which the model knows
        (20.0, 28.0, 50, 4.0, None),  # and one that nothing announces: 12 nats
        (20.0, 28.0, 50, 11.0, 12.0),  # but here the prompts are no text to it either
        (20.0, 28.0, 50, None, 12.0),  # and here that is not known
        (14.0, 36.0, 10, 4.0, 11.56),  # ten tokens an answer, none of which it knows
        (14.0, 40.0, 20, 4.0, None),
        (9.0, 0.0, 50, 12.0, None),  # what it costs in all is not much
        (20.0, None, 50, None, 20.0),  # a run from before the two were told apart
        (20.0, 35.0, 0, 4.0, 20.0),
    ],
)
def test_a_large_start_is_judged_by_text(loss, end_loss, ends, prompt, text):
    train = {"trained_tokens": 100, "trained_ends": ends}
    start = {"loss": loss, "end_loss": end_loss, "prompt_loss": prompt}
    run = course([loss, 2.0], [start, 2.0], report={"sets": {"train": train}})
    found = data.large_start(run)
    if text is None:
        assert found is None
        return
    assert f"begins at a loss of {text:.2f} nats a token" in found.sentence
    assert (f"{loss:.2f} with the ends of turn" in found.sentence) == (text != loss)
    assert ("on the prompts" in found.sentence) == (prompt is not None)


def test_training_losses_with_prompts_are_held_against_no_validation_loss():
    """They are of other text; the course of training alone can still show overfitting."""
    train = [4.0] * 4 + [3.0] * 4 + [2.0] * 4
    plain = course(train, [1.5, 1.4, 1.5, 1.8])
    assert data.distributions(plain) and not curves.overfitting(plain)
    mixed = course(train, [1.5, 1.4, 1.5, 1.8], {"loss.prompt_weight": 0.1, "train.epochs": 3})
    assert data.distributions(mixed) is None
    assert "from epoch 2 on: validation loss rose from 1.4000" in curves.overfitting(mixed).sentence
    summary = diagnosis.diagnose(mixed).summary
    assert "training losses are of prompts too (config.loss.prompt_weight)" in summary
    assert "prompt_weight" not in diagnosis.diagnose(plain).summary


def test_rows_cut_and_rows_without_targets():
    fit = {"over": 30, "share": 0.3, "truncated": 20, "dropped": 10, "max_length": 64}
    train = {"fit": fit | {"lost_trained_tokens": 50}, "trained_tokens": 950}
    train["untrained"] = {"rows": 2, "first": "a.jsonl:7"}
    run = course([1.0], [1.0], report={"sets": {"train": train}})
    assert "30 training rows (30 %)" in data.cut(run).sentence
    assert "50 trained tokens (5.0 %)" in data.cut(run).sentence
    assert "2 of train (the first: a.jsonl:7)" in data.without_targets(run).sentence
    fit |= {"share": 0.009, "lost_trained_tokens": 9}
    train["fit"] = fit
    assert data.cut(run) is None
    train["untrained"] = {"rows": 0, "first": ""}
    assert data.without_targets(run) is None


@pytest.mark.parametrize(
    ("validation", "found"),
    # 400 tokens have an error of 0.05, so 100 have 0.1, and three of both are 0.34.
    [(2.32, False), (2.36, True), (1.68, False), (1.64, True)],
)
def test_sets_whose_losses_differ_before_training(validation, found):
    run = course([2.0, 1.0], [validation, 1.0])
    assert (data.distributions(run) is not None) == found


def test_sets_that_the_audit_tells_apart():
    skew = [
        {"right": "test", "differs": 3, "summary": "test differs."},
        {"right": "validation", "differs": 0, "summary": "validation looks like train."},
    ]
    run = course([2.0, 1.0], [2.0, 1.0], report={"skew": skew})
    assert data.distributions(run) is None
    skew[1] |= {"differs": 2, "summary": "validation differs from train in 2 ways."}
    assert "validation differs from train in 2 ways." in data.distributions(run).sentence


@pytest.mark.parametrize(
    ("losses", "found"),
    [
        ([3.0, 1.10, 1.05], False),  # differ by one error, 0.05
        ([3.0, 1.06, 1.02], False),  # 0.05 is 2 % of a fall of 2.5 or more, whatever it hides
        ([2.0, 1.06, 1.02], True),
        ([2.0, 1.02, 1.02], False),  # no difference, so none that could be told
    ],
)
def test_validation_too_small_to_tell(losses, found):
    scale = {"loss_se": 0.05 if losses[0] == 2.0 or losses[1] == 1.10 else 0.039}
    run = course(FALLING, [{"loss": loss} | scale for loss in losses])
    assert (choice.small_validation(run) is not None) == found


def test_a_run_that_does_not_move_says_nothing_about_validation():
    still = [{"loss": loss, "loss_se": 0.2} for loss in (3.0, 2.99, 2.98)]
    assert choice.small_validation(course([3.0] * 4, still)) is None
    moved = [{"loss": loss, "loss_se": 0.2} for loss in (3.0, 2.9, 2.89)]
    assert choice.small_validation(course([3.0] * 4, moved)) is not None


def test_validation_too_small_says_how_many_rows_would_tell():
    report = {"sets": {"validation": {"rows": 20}}}
    finding = choice.small_validation(course(FALLING, [2.0, 1.06, 1.02], report=report))
    assert "of 20 rows is too small" in finding.sentence and "0.0500" in finding.sentence
    assert "About 125 rows would tell" in finding.remedy  # 20 * (2 * 0.05 / 0.04) ** 2


@pytest.mark.parametrize("train", [[6.0, 900.0, 700.0, 600.0], [6.0, 1.0, math.inf, 1.0]])
def test_of_a_run_that_diverged_no_epoch_is_discussed(train):
    rows = [
        {"loss": loss, "token_accuracy": accuracy}
        for loss, accuracy in ((6.0, 0.0), (452.0, 0.56), (620.0, 0.63))
    ]
    run = course(train, rows)
    assert [finding.name for finding in diagnosis.diagnose(run).findings] == ["diverged"]
    close = course(train, [6.0, 1.06, 1.02], report={"sets": {"validation": {"rows": 20}}})
    assert choice.small_validation(close) is None


def test_disagreement_beyond_the_noise_of_the_metric():
    def run(accuracies, **more):
        rows = [
            {"loss": loss, "token_accuracy": accuracy}
            for loss, accuracy in zip((3.0, 1.0, 1.02), accuracies, strict=True)
        ]
        return course(FALLING, rows, **more)

    assert choice.disagreement(run((0.1, 0.5, 0.54))) is None  # 400 tokens: 0.025 each way
    assert "token accuracy is best at epoch 2 (56.0 %; 50.0 % at epoch 1)" in (
        choice.disagreement(run((0.1, 0.5, 0.56))).sentence
    )
    # Metrics of generated answers are in the selection; equal scores do not disagree.
    epochs = [{"step": 3, "exact_match": 0.5}, {"step": 6, "exact_match": 0.75}]
    even = run((0.1, 0.5, 0.5), selection={"epochs": epochs}, config={})
    assert "exact match is best at epoch 2" in choice.disagreement(even).sentence
    few = run((0.1, 0.5, 0.5), selection={"epochs": epochs}, config={"eval.during_training": 8})
    assert choice.disagreement(few) is None  # two answers of eight
    epochs[1]["exact_match"] = 0.5
    assert choice.disagreement(even) is None
    epochs[1]["perplexity"] = epochs[0]["perplexity"] = 2.0
    epochs[0]["perplexity"] = 3.0
    assert "perplexity is best at epoch 2 (2; 3 at" in choice.disagreement(even).sentence
    for row in epochs:
        row["distance"] = row.pop("perplexity")
    assert choice.disagreement(even) is None  # as higher is better unless it is said otherwise
    even.selection.update(metric="distance", better="lower")
    assert "distance is best at epoch 2" in choice.disagreement(even).sentence


def test_findings_are_ordered_and_shown():
    report = {"sets": {"train": {"untrained": {"rows": 2, "first": "a:7"}, "fit": None}}}
    run = course(FALLING, [3.0, 1.0, 1.1, 1.25], report=report)
    found = diagnosis.diagnose(run)
    assert [f.severity for f in found.findings] == ["error", "warning"]
    page = "".join(parse(html.render(run)).text)
    text = terminal.render(run)
    for finding in found.findings:
        assert finding.sentence in page and finding.sentence in text
        assert finding.remedy in page and finding.remedy in text
    assert found.summary in page and found.summary in text
