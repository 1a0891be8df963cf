"""``sft sweep --trials=N``: points that Optuna suggests, each by what the ones before it gave.

A file, by default the configuration's, has ``suggest(trial)``, which returns overrides::

    def suggest(trial):
        return {
            "optim.learning_rate": trial.suggest_float("rate", 1e-4, 1e-2, log=True),
            "lora.rank": trial.suggest_categorical("rank", [4, 8, 16]),
        }

What is looked for is the best validation by ``train.select``, never a score on the test set. A
trial that at some validation is worse than the median of those before it is stopped. The trials
are kept in ``study.log``, so a search that was killed goes on where it was. Sampler and pruner are
Optuna's own (Akiba et al., 2019): tree-structured Parzen estimator, median pruning.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from sft.errors import UserError
from sft.eval import metrics
from sft.run.directory import read_json
from sft.train import selection
from sft.train.selection import Rule
from sft.tune import points as making
from sft.tune.points import Overrides, Point
from sft.tune.process import Job

STARTUP = 5  # trials that are drawn at random, and not stopped
NOTE = "STOPPED"  # file in the directory of a trial that was stopped, with the reason


class Search:
    """The trials: which are under way, what they say, and the next one.

    Args:
      suggest: of the user's file.
      prepare: makes the directory of a point and gives its job.
      count: trials in all, with those of earlier calls, without those that failed there.

    Raises:
      UserError: Optuna is not installed.
    """

    def __init__(
        self,
        config: ConfigDict,
        path: Path,
        suggest: Callable[[Any], Overrides],
        prepare: Callable[[Point], Job],
        count: int,
    ):
        self._config, self._suggest, self._prepare = config, suggest, prepare
        self._optuna = _import()
        self._states = self._optuna.trial.TrialState
        self._rule = metrics.chooses(config)
        self._study = _study(self._optuna, path / "study.log", self._rule)
        before = self._study.get_trials()
        # The liar keeps trials that run at the same time apart, the seed those of an earlier call.
        self._study.sampler = self._optuna.samplers.TPESampler(
            n_startup_trials=STARTUP, seed=config.seed + len(before), constant_liar=True
        )
        self._left = [trial for trial in before if trial.state == self._states.RUNNING]
        self._to_ask = count - sum(trial.state != self._states.FAIL for trial in before)
        self._jobs: dict[str, Job] = {}  # two trials may suggest the same point
        self._under_way: list[tuple[Any, Job]] = []

    @property
    def is_over(self) -> bool:
        return not self._under_way and not self._left and self._to_ask <= 0

    def next(self) -> Job | None:
        """The job of another trial; ``None`` when there have been enough.

        Raises:
          UserError: what ``suggest`` raises, or what it returns is not a sound point.
        """
        if self._left:
            # Only a trial that is under way can be reported on.
            trial = self._optuna.trial.Trial(self._study, self._left.pop(0)._trial_id)
        elif self._to_ask > 0:
            trial = self._study.ask()
            self._to_ask -= 1
        else:
            return None
        point = self._point(trial)
        job = self._jobs.get(point.name) or self._prepare(point)
        self._jobs[point.name] = job
        note = job.path / NOTE
        job.stopped = note.read_text() if note.exists() else ""
        self._under_way.append((trial, job))
        return job

    def _point(self, trial: Any) -> Point:
        overrides = trial.user_attrs.get("overrides")
        try:
            overrides = overrides or self._suggest(trial)
            (point,) = making.check(self._config, [overrides], f"trial {trial.number}")
        except BaseException:
            self._study.tell(trial, state=self._states.FAIL)
            raise
        trial.set_user_attr("overrides", overrides)
        return point

    def look(self) -> None:
        """Tells Optuna what has come in, and stops what it would stop."""
        for trial, job in list(self._under_way):
            self._report(trial, job)
            if job.is_over:
                self._tell(trial, job)
                self._under_way.remove((trial, job))

    def _report(self, trial: Any, job: Job) -> None:
        known = self._study.get_trials(deepcopy=False)[trial.number].intermediate_values
        for row in selection.validations(job.path):
            if row["step"] in known or self._rule.metric not in row:
                continue
            trial.report(row[self._rule.metric], row["step"])
            if job.is_running and not job.stopped and trial.should_prune():
                job.stopped = f"worse than half of the others at step {row['step']}"
                (job.path / NOTE).write_text(job.stopped)
                job.stop()

    def _tell(self, trial: Any, job: Job) -> None:
        if job.stopped or job.failure:
            state = self._states.FAIL if job.failure else self._states.PRUNED
            self._study.tell(trial, state=state)
            return
        chosen = read_json(job.path / "selection.json")
        value = next(e[self._rule.metric] for e in chosen["epochs"] if e["step"] == chosen["step"])
        self._study.tell(trial, value)

    def best(self) -> dict[str, Any] | None:
        """``{"metric", "value", "overrides"}`` of the best trial so far, if there is one."""
        if not self._study.get_trials(deepcopy=False, states=[self._states.COMPLETE]):
            return None
        found = self._study.best_trial
        overrides = found.user_attrs["overrides"]
        return {"metric": self._rule.metric, "value": found.value, "overrides": overrides}


def _study(optuna: Any, log: Path, rule: Rule) -> Any:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    backend = optuna.storages.journal.JournalFileBackend(str(log))
    return optuna.create_study(
        study_name="sweep",
        storage=optuna.storages.JournalStorage(backend),
        load_if_exists=True,
        direction="minimize" if rule.better == "lower" else "maximize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP),
    )


def _import() -> Any:
    try:
        import optuna
    except ImportError:
        raise UserError(
            "sft sweep --trials needs Optuna: uv sync --extra search, or pip install optuna."
        ) from None
    return optuna
