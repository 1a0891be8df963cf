"""Which epoch to keep: the lowest validation loss, the earlier one on a tie."""

from pathlib import Path
from typing import Any

from sft.errors import UserError
from sft.train import log
from sft.workdir import write_json


def choose(workdir: Path) -> dict[str, Any]:
    """Reads the validation rows of ``metrics.jsonl`` and writes ``selection.json``.

    Raises:
      UserError: no epoch was finished.
    """
    rows = [row for row in log.read(workdir) if row["split"] == "validation" and row["step"] > 0]
    if not rows:
        raise UserError(f"{workdir}/metrics.jsonl: no finished epoch. Run sft train to its end.")
    epochs = [
        {
            "epoch": round(row["epoch"]),
            "step": row["step"],
            "loss": row["loss"],
            "token_accuracy": row["token_accuracy"],
        }
        for row in rows
    ]
    best = min(epochs, key=lambda row: (row["loss"], row["step"]))
    chosen = {
        "metric": "validation loss",
        "epoch": best["epoch"],
        "step": best["step"],
        "checkpoint": f"checkpoints/{best['step']}",
        "epochs": epochs,
        "why": f"lowest validation loss, {best['loss']:.4f}, of {len(epochs)} epochs",
    }
    write_json(workdir / "selection.json", chosen)
    return chosen
