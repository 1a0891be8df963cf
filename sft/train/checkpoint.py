"""Checkpoints: Orbax, asynchronous, of the train state only (never the frozen weights).

One directory holds them all, ``checkpoints/<step>``. What is kept is the union of two rules: the
newest ``keep_latest``, for resuming, and the ``keep_best`` that validation ranks first, for use. So
an overfitting run can always be resumed, and its best epoch is never lost.
"""

import contextlib
import errno
import logging
from collections.abc import Generator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from sft.errors import UserError
from sft.run import bucket
from sft.run.directory import path_of
from sft.types import TrainState


class Checkpoints:
    """The checkpoints of one run directory."""

    def __init__(self, workdir: str | Path, config: ConfigDict, *, read_only: bool = False):
        logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax narrates below that
        policy = ocp.checkpoint_managers.preservation_policy
        keep = policy.AnyPreservationPolicy(
            [
                policy.LatestN(config.train.keep_latest),
                policy.BestN(
                    # Descending, so that the last ones are the best.
                    get_metric_fn=_rank,
                    reverse=True,
                    n=config.train.keep_best,
                    keep_checkpoints_without_metrics=False,
                ),
            ]
        )
        path = path_of(workdir)
        self.directory = (path if bucket.holds(path) else path.absolute()) / "checkpoints"
        self._manager = ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=keep,
                best_fn=_rank,  # without it metrics are not written, and a restart forgets them
                read_only=read_only,
            ),
            item_names=("state", "position"),
        )

    def latest(self) -> int | None:
        """The newest complete step, or ``None``."""
        return self._manager.latest_step()

    def steps(self) -> list[int]:
        """All complete steps, ascending."""
        return sorted(self._manager.all_steps())

    def save(
        self,
        step: int,
        state: TrainState,
        position: dict[str, Any],
        rank: float | None,
        tie: float = 0.0,
    ):
        """Starts writing; returns when the state may be changed again.

        Args:
          position: where the data stands: JSON values.
          rank: of the validation at this very step, lower is better (``selection.Rule.rank``);
            ``None`` for a recovery checkpoint.
          tie: decides between equal ranks, lower is better too.

        Raises:
          UserError: the disk is full, or the bucket refuses. What was saved before is intact.
        """
        with _disk_errors(self.directory):
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state), position=ocp.args.JsonSave(position)
                ),
                metrics=None if rank is None else {"rank": rank, "tie": tie, "step": step},
                force=True,
            )

    def restore(self, step: int, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The state (placed as ``like``, arrays or ``ShapeDtypeStruct``s) and data position.

        Raises:
          UserError: damaged or missing.
        """
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like
        )
        try:
            found = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(abstract), position=ocp.args.JsonRestore()
                ),
            )
        except Exception as error:  # Orbax raises many kinds for the same cause
            reason = str(error).strip().split("\n")[0]
            if any(words in reason for words in _OTHER):
                raise UserError(
                    f"{self.directory / str(step)}: its arrays have other names or shapes "
                    f"({reason.split('. ')[0]}): another version of this code made it, or it is of "
                    "another model. Use the revision that environment.json names, or start anew."
                ) from error
            raise UserError(
                f"{self.directory / str(step)}: cannot be restored ({reason}). Remove that "
                f"directory to go back to an earlier step; there are {self.steps()}."
            ) from error
        return found["state"], found["position"]

    def wait(self) -> None:
        """Blocks until everything is on disk.

        Raises:
          UserError: as ``save``.
        """
        with _disk_errors(self.directory):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits as ``wait`` does, then ends the threads, which may complain of a failure again."""
        with _disk_errors(self.directory):
            self._manager.wait_until_finished()
            self._manager.close()


# What Orbax says of a whole checkpoint of something else.
_OTHER = ("not compatible with the stored shape", "tree structures do not match")


def _rank(metrics: dict[str, float]) -> Any:
    return metrics["rank"], metrics.get("tie", 0.0), metrics["step"]  # once there were no ties


@contextlib.contextmanager
def _disk_errors(directory: Path) -> Generator[None]:
    try:
        yield
    except Exception as error:  # ENOSPC arrives as OSError, or as text from TensorStore
        said = bucket.said(error) if bucket.holds(directory) else None
        if said is not None:
            raise UserError(
                f"{directory}: the bucket refuses ({said}). Earlier checkpoints are intact: put "
                f"that right, and start the same command again."
            ) from error
        full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
        if not full:
            raise
        raise UserError(
            f"{directory}: the disk is full. Earlier checkpoints are intact: free some space, or "
            f"lower config.train.keep_latest, and start the same command again."
        ) from error
