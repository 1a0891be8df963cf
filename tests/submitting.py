"""``tpu.submit`` called in this process, with stand-ins for the tools on PATH."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tpu import done, skypilot, submit

SETS = [f"--config.data.{name}=gs://b/{name}.jsonl" for name in ("train", "validation", "test")]
BASE = ["--config=configs/quickstart.py", *SETS, "--bucket=gs://b/runs", "--no-plan"]
V6E = [*BASE, "--slice=v6e-8"]
STUB = """#!{python}
import json, os, sys
with open({log!r}, "a") as log:
    log.write(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]) + "\\n")
if "queue" in sys.argv and "--output=json" in sys.argv:
    print(os.environ.get("QUEUE", "[]"))
    sys.exit(int(os.environ.get("QUEUE_EXIT", "0")))
sys.exit(int(os.environ.get("STUB_EXIT", "0")))
"""


def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[list[str]]]:
    """Puts them on PATH. What is returned says what was called."""
    folder, log = tmp_path / "bin", tmp_path / "calls"
    folder.mkdir()
    for name in ("sky", "gcloud", "xpk", "kubectl"):
        (folder / name).write_text(STUB.format(python=sys.executable, log=str(log)))
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(skypilot, "FOLDER", tmp_path / "submitted")
    # Buckets are not there; what they would say is given.
    monkeypatch.setattr(done, "there", lambda bucket, digits: ({}, ""))
    return lambda: (
        [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    )


def run(*words: str) -> int:
    return submit.main(["submit", *words])


def launches(calls) -> list[list[str]]:
    return [call for call in calls() if call[1:3] == ["jobs", "launch"]]
