"""A checkout on a host whose uv and Python are stand-ins, for tests of ``tpu/host.sh``."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from test_scripts import program

ROOT = Path(__file__).parents[1]
BARE = {"PATH": "/usr/bin:/bin"}
TPU = "--config.mesh.platform=tpu"
UV = """
case "$1" in --version) echo "uv 0.9.1"; exit ;; esac
echo "$@" >>"{log}"
if [[ -e "{root}/uv_fails" ]]; then echo "no such package: xyz" >&2; exit 2; fi
mkdir -p "$UV_PROJECT_ENVIRONMENT/bin"
cp "{root}/python" "$UV_PROJECT_ENVIRONMENT/bin/python"
"""
# Runs what is asked for before training; of training it takes down how it was called.
PYTHON = """
if [[ $1 == tpu/preflight.py ]]; then shift; {preflight}; fi
if [[ "$1 $2" == "-m sft.commands.table" ]]; then PYTHONPATH="{root}" exec "{python}" "$@"; fi
if [[ $1 == -c ]]; then exit 0; fi  # install.sh asks whether this is a good Python
exec "{python}" "{record}" "{told}" "$@"
"""
RECORD = """
import json, os, signal, sys, time
told, *words = sys.argv[1:]
signal.signal(signal.SIGTERM, lambda *_: sys.exit(42))
with open(told + ".part", "w") as file:
    call = {"words": words, "environment": dict(os.environ), "pid": os.getpid(), "cwd": os.getcwd()}
    json.dump(call, file)
os.rename(told + ".part", told)
[time.sleep(60) for word in words if word == "--wait"]
sys.exit(next((int(w.removeprefix("--exit=")) for w in words if w.startswith("--exit=")), 0))
"""


class Host:
    """A checkout on a host whose uv and Python are stand-ins."""

    def __init__(self, root: Path, preflight: str = "exit 0"):
        self.root, self.repo, self.told = root, root / "repo", root / "told.json"
        (self.repo / "scripts").mkdir(parents=True)
        for name in ("env.sh", "install.sh"):
            shutil.copy(ROOT / "scripts" / name, self.repo / "scripts")
        shutil.copytree(ROOT / "tpu", self.repo / "tpu")
        for name in ("uv.lock", "pyproject.toml"):
            shutil.copy(ROOT / name, self.repo)
        self.log, record = root / "uv.log", root / "record.py"
        record.write_text(RECORD)
        names = {"python": sys.executable, "record": record, "told": self.told, "root": ROOT}
        program(root / "python", PYTHON.format(preflight=preflight, **names))
        program(self.repo / ".venv-uv/bin/uv", UV.format(log=self.log, root=root))
        program(root / "bin/python3.12", "exit 0")
        # What is on the PATH comes first, so that none of this machine's is used.
        shutil.copy(self.repo / ".venv-uv/bin/uv", root / "bin/uv")
        self.bare = BARE | {"PATH": f"{root / 'bin'}:{BARE['PATH']}"}

    def line(self, *words: str) -> list[str]:
        return ["bash", str(self.repo / "tpu/host.sh"), *words]

    def run(self, *words: str, cwd: Path = Path("/"), **more: str) -> subprocess.CompletedProcess:
        """``env -i PATH=… bash host.sh WORDS``."""
        return subprocess.run(
            self.line(*words), env=self.bare | more, cwd=cwd, capture_output=True, text=True
        )

    @property
    def call(self) -> dict | None:
        """How training was called, if it was."""
        return json.loads(self.told.read_text()) if self.told.exists() else None

    @property
    def calls_of_uv(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []
