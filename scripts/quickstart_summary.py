"""Writes ``summary.json`` of a finished quickstart run: ``quickstart_summary.py WORKDIR``."""

import json
import sys
from pathlib import Path

from sft.errors import BAD_INPUT, PREEMPTED, UserError
from sft.report.load import Run, load_run, read_lines

TEST_SET = "test"


def phase_totals(path: Path) -> tuple[dict[str, float], int]:
    """Seconds per phase (interrupted attempts added up) and the largest peak memory in bytes."""
    seconds, peak = {}, 0
    for record in read_lines(path, "Remove it and run scripts/quickstart.sh again."):
        if record["exit"] in (0, PREEMPTED):
            seconds[record["phase"]] = seconds.get(record["phase"], 0.0) + record["seconds"]
            peak = max(peak, record["peak_rss_bytes"])
    return seconds, peak


def summarise(run: Run, seconds: dict[str, float], peak: int) -> dict:
    """The values promised under "Machine-readable ends" in the design document.

    Raises:
      UserError: an evaluation, the data report or the selection is missing.
    """
    base, tuned = (run.eval(arm, TEST_SET) for arm in ("base", "best"))
    if not (base and tuned and run.selection and run.data):
        raise UserError(f"{run.path}: the run is not finished. Run scripts/quickstart.sh again.")
    return {
        "base": {key: base[key] for key in ("exact_match", "loss")},
        "tuned": {key: tuned[key] for key in ("exact_match", "loss", "token_accuracy")},
        "best_epoch": run.selection["epoch"],
        "epochs": len([e for e in run.selection["epochs"] if e["epoch"] > 0]),
        "train_examples": run.data["sets"]["train"]["rows"],
        "trained_tokens": run.data["sets"]["train"]["trained_tokens"],
        "wall_seconds": {**seconds, "total": round(sum(seconds.values()), 3)},
        "peak_rss_bytes": peak,
    }


def main() -> int:
    workdir = Path(sys.argv[1])
    try:
        seconds, peak = phase_totals(workdir / "phases.jsonl")
        summary = summarise(load_run(workdir), seconds, peak)
    except UserError as error:
        print(error, file=sys.stderr)
        return BAD_INPUT
    (workdir / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
