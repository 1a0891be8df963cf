"""Metrics out: ``metrics.jsonl`` and TensorBoard. Process 0 only."""

import json
import os
from pathlib import Path

from sft.errors import UserError
from sft.run import bucket
from sft.run.directory import path_of
from sft.run.mirror import Mirror


class MetricsLog:
    """Appends rows to ``metrics.jsonl`` and to a TensorBoard event file.

    Opening at ``step`` forgets rows of later steps, and at 0 all: they are made again.

    A bucket gets both files whole, at ``sync``; until then rows are on this machine.
    """

    def __init__(self, workdir: str | Path, step: int):
        import tensorboardX

        target = path_of(workdir)
        self._mirror = Mirror(target) if bucket.holds(target) else None
        folder = self._mirror.folder if self._mirror else target
        self._path = folder / "metrics.jsonl"
        kept = [row for row in read(workdir) if row["step"] <= step] if step else []
        partial = self._path.with_suffix(".jsonl.tmp")
        partial.write_text("".join(json.dumps(row) + "\n" for row in kept))
        os.replace(partial, self._path)
        self._file = self._path.open("a", buffering=1)
        self._board = tensorboardX.SummaryWriter(
            str(folder), purge_step=step + 1 if step else 0, write_to_disk=True
        )

    def write(self, split: str, step: int, epoch: float, **values: float) -> None:
        """One row; ``values`` become ``<split>/<name>`` in TensorBoard."""
        row = {"split": split, "step": step, "epoch": round(epoch, 6), **values}
        self._file.write(json.dumps(row) + "\n")
        for name, value in values.items():
            if not self._board_works():
                raise UserError(
                    f"{self._path.parent}: TensorBoard's file could not be written, probably "
                    "because the disk is full. Free some, and start the same command again."
                )
            self._board.add_scalar(f"{split}/{name}", value, step)
        if self._mirror:
            self._mirror.changed()

    def sync(self) -> None:
        """Returns when all rows so far are in ``metrics.jsonl``: before their checkpoint may be.

        TensorBoard's file may lack the newest until the next time.

        Raises:
          UserError: the bucket refuses.
        """
        if self._mirror:
            if self._board_works():
                self._board.flush()
            self._mirror.send()

    def _board_works(self) -> bool:
        """Its thread ends at the first error, and to add or flush would then wait for ever."""
        return self._board._get_file_writer().event_writer._worker.is_alive()

    def close(self) -> None:
        """Ends both files.

        Raises:
          UserError: as ``sync``.
        """
        self._file.close()
        if self._board_works():
            self._board.close()
        if self._mirror:
            self._mirror.close()


def read(workdir: str | Path) -> list[dict]:
    """The rows of ``metrics.jsonl``; a last line cut short by a crash is left out.

    Raises:
      UserError: a line is damaged.
    """
    path = path_of(workdir) / "metrics.jsonl"
    if not path.exists():
        return []
    lines = path.read_text().split("\n")
    whole = lines[:-1]  # what follows the last newline is empty, or was never finished
    try:
        return [json.loads(line) for line in whole]
    except ValueError as error:
        raise UserError(
            f"{path}: damaged ({error}). Restore it or choose another --workdir."
        ) from None
