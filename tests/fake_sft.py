"""Stands in for ``sft train`` and ``sft eval`` of a sweep's point: quick, and as bad as is asked.

What it does to a point is in ``BEHAVIOUR`` of the environment: ``{part of a name: [exit codes of
its calls, one after the other; the last for all others]}``; ``"hang"`` waits for a signal.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path


def main() -> int:
    command, *words = sys.argv[1:]
    run = Path(next(w.removeprefix("--workdir=") for w in words if w.startswith("--workdir=")))
    with (run / "calls").open("a") as file:
        file.write(json.dumps([command, *words]) + "\n")
    count = len((run / "calls").read_text().splitlines())
    codes = [0]
    for part, wanted in json.loads(os.environ["BEHAVIOUR"]).items():
        if part in run.name:
            codes = wanted
    code = codes[min(count, len(codes)) - 1]
    log = Path(os.environ["EVENTS"])
    with log.open("a") as file:
        file.write(f"begin {run.name} {os.getpid()}\n")
    if code == "hang":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(42))
        time.sleep(600)
    time.sleep(0.3)
    with log.open("a") as file:
        file.write(f"end {run.name}\n")
    if code == 42:
        (run / "checkpoints" / str(count)).mkdir(parents=True)
    elif code:
        print("sft: it went wrong.", file=sys.stderr)
    elif command == "train":
        (run / "DONE").touch()
    else:
        (run / "eval").mkdir(exist_ok=True)
        (run / "eval" / "best.test.predictions.jsonl").touch()
    return code


if __name__ == "__main__":
    sys.exit(main())
