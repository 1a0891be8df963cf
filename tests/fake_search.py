"""Stands in for ``sft train`` of a search's trial: its validation loss is what its rate says.

It validates five times, with ``PAUSE`` seconds of the environment between; SIGTERM stops it.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(42))
    run = Path(next(w.removeprefix("--workdir=") for w in sys.argv if w.startswith("--workdir=")))
    with (run / "calls").open("a") as file:
        file.write(sys.argv[1] + "\n")
    rate = json.loads((run / "config.json").read_text())["config"]["optim.learning_rate"]
    rows = run / "metrics.jsonl"
    done = len(rows.read_text().splitlines()) if rows.exists() else 0
    for step in range(done + 1, 6):
        time.sleep(float(os.environ["PAUSE"]))
        row = {
            "split": "validation",
            "step": step,
            "epoch": step,
            "loss": abs(rate - 0.3) + 1 / step,
        }
        with rows.open("a") as file:
            file.write(json.dumps(row | {"token_accuracy": 0.5, "weight": 1.0}) + "\n")
    epochs = [json.loads(line) for line in rows.read_text().splitlines()]
    (run / "selection.json").write_text(json.dumps({"step": 5, "epochs": epochs}))
    (run / "DONE").touch()
    return 0


if __name__ == "__main__":
    sys.exit(main())
