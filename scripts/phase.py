"""Runs a command and appends its time, peak memory and exit code to a file, as one JSON line.

    python scripts/phase.py runs/quickstart/phases.jsonl train sft train --config …
    python scripts/phase.py --since 1700000000.5 runs/quickstart/phases.jsonl install

With ``--since`` (seconds since 1970) nothing is run: the time from then to now is noted. Exits
with the command's exit code.
"""

import json
import resource
import subprocess
import sys
import time
from typing import Any


def measure(command: list[str]) -> dict[str, Any]:
    """``{"seconds", "peak_rss_bytes", "exit"}`` of one command and what it started."""
    start = time.monotonic()
    code = subprocess.call(command)
    seconds = time.monotonic() - start
    unit = 1 if sys.platform == "darwin" else 1024  # Linux counts KiB, macOS bytes
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit
    return {"seconds": round(seconds, 3), "peak_rss_bytes": peak, "exit": code}


def main(arguments: list[str]) -> int:
    since = None
    if arguments[:1] == ["--since"]:
        since, arguments = float(arguments[1]), arguments[2:]
    path, name, *command = arguments
    if since is None:
        record = measure(command)
    else:
        seconds = round(time.time() - since, 3)
        record: dict[str, Any] = {"seconds": seconds, "peak_rss_bytes": 0, "exit": 0}
    with open(path, "a") as file:
        file.write(json.dumps({"phase": name, **record}) + "\n")
    return record["exit"] if record["exit"] >= 0 else 128 - record["exit"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
