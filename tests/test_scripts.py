"""The bootstrap, with stand-ins for Python and uv: no installation, no network."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = [
    *sorted((ROOT / "scripts").rglob("*.sh")),
    *(ROOT / "tpu").glob("*.sh"),
    ROOT / "scripts" / "sft",
    ROOT / ".ci" / "run",
]
WORKING = "exit 0"  # a Python that passes the check of install.sh
BROKEN = "echo 'command not found in this version' >&2; exit 127"
UV = """
case "$1" in --version) echo "uv ${FAKE_UV_VERSION:-0.9.1}"; exit ;; esac
echo "$@" >>"$UV_LOG"
if [[ " $* " == *" --offline "* && -n ${NEEDS_NETWORK:-} ]]; then exit 1; fi
if [[ -n ${UV_FAILS:-} ]]; then echo "no such package: xyz" >&2; exit 2; fi
mkdir -p "$UV_PROJECT_ENVIRONMENT/bin"
printf '#!/bin/bash\\nexit 0\\n' >"$UV_PROJECT_ENVIRONMENT/bin/python"
chmod +x "$UV_PROJECT_ENVIRONMENT/bin/python"
"""


def program(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(0o755)
    return path


class Machine:
    """A checkout, a home and a PATH with the system tools that install.sh needs, and no more."""

    TOOLS = "bash dirname cat cksum sort mkdir chmod rm env readlink".split()

    def __init__(self, root: Path):
        self.repo, self.home, self.bin = root / "repo", root / "home", root / "bin"
        (self.repo / "scripts").mkdir(parents=True)
        self.home.mkdir()
        for name in ("env.sh", "install.sh", "sft"):
            shutil.copy(ROOT / "scripts" / name, self.repo / "scripts")
        for name in ("uv.lock", "pyproject.toml"):
            (self.repo / name).write_text(name)
        self.bin.mkdir()
        for tool in self.TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool))
        self.log = root / "uv.log"

    def uv(self) -> None:
        program(self.bin / "uv", UV)

    def source(self, *extras: str, **variables: str) -> subprocess.CompletedProcess:
        command = f'set -euo pipefail; source "{self.repo}/scripts/env.sh" "$@"; type -P python'
        return self.run(["/bin/bash", "-c", command, "bash", *extras], **variables)

    def run(self, line: list[str], cwd: Path = ROOT, **variables: str):
        environment = {"PATH": str(self.bin), "HOME": str(self.home), "UV_LOG": str(self.log)}
        return subprocess.run(
            line,
            env=environment | variables,
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=30,
        )

    def calls(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_scripts_parse(script):
    subprocess.run(["bash", "-n", script], check=True)
    if script.name != "env.sh":  # which is sourced
        assert os.access(script, os.X_OK)
        assert "set -euo pipefail" in script.read_text()


def test_python_on_the_path_is_used_and_activated(machine):
    machine.uv()
    python = program(machine.bin / "python3.12", WORKING)
    run = machine.source("dev", "demo")
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == str(machine.repo / ".venv/bin/python")
    assert machine.calls() == [
        f"sync --offline --quiet --project {machine.repo} --frozen --python {python} "
        "--extra dev --extra demo"
    ]


def test_broken_shims_are_passed_over_for_a_version_managers_python(machine):
    machine.uv()
    for name in ("python3.12", "python3.13", "python3"):
        program(machine.bin / name, BROKEN)
    program(machine.home / ".pyenv/versions/3.11.7/bin/python", WORKING)
    program(machine.home / ".pyenv/versions/3.12.9/bin/python", BROKEN)
    python = program(machine.home / ".pyenv/versions/3.13.0/bin/python", WORKING)
    assert machine.source("demo").returncode == 0
    assert f"--python {python} " in machine.calls()[0]


def test_312_is_preferred_and_pyenv_root_is_heeded(machine, tmp_path):
    machine.uv()
    program(machine.bin / "python3.13", WORKING)
    python = program(tmp_path / "elsewhere/versions/3.12.1/bin/python", WORKING)
    assert machine.source("demo", PYENV_ROOT=str(tmp_path / "elsewhere")).returncode == 0
    assert f"--python {python} " in machine.calls()[0]


needs_zsh = pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh")
LOOK = 'whence -p python; print -r -- "$ROOT"; set -o | grep -E "errexit|nounset|pipefail"'


@needs_zsh
@pytest.mark.parametrize("options", ["", "setopt nounset noclobber shwordsplit ksharrays"])
def test_zsh_sources_it_too(machine, tmp_path, options):
    """From a relative path, through a link, with options of one's own: nothing is left behind."""
    machine.uv()
    program(machine.bin / "python3.12", WORKING)
    (machine.bin / "grep").symlink_to(shutil.which("grep"))
    (tmp_path / "link").symlink_to(machine.repo)
    before = sorted(tmp_path.iterdir())
    for path, cwd in ((machine.repo / "scripts/env.sh", "/"), ("link/scripts/env.sh", tmp_path)):
        run = machine.run(
            [shutil.which("zsh"), "-f", "-c", f"{options}\nsource {path} dev\n{LOOK}"], Path(cwd)
        )
        assert run.returncode == 0 and run.stderr.count("\n") <= 1, run.stderr
        python, root, *switches = run.stdout.splitlines()
        assert python == str(machine.repo / ".venv/bin/python") and root == str(machine.repo)
        is_set = {line.split()[0]: line.split()[1] for line in switches}
        assert is_set["errexit"] == is_set["pipefail"] == "off"
    assert sorted(tmp_path.iterdir()) == sorted([*before, machine.log])
    assert len(machine.calls()) == 1


@needs_zsh
def test_zsh_hears_of_a_failure_and_lives_on(machine):
    machine.uv()
    program(machine.bin / "python3.12", WORKING)
    line = f'source {machine.repo}/scripts/env.sh dev; echo $? "$VIRTUAL_ENV"'
    run = machine.run([shutil.which("zsh"), "-f", "-c", line], UV_FAILS="1")
    assert run.stdout == "1 \n" and "no such package: xyz" in run.stderr


def test_other_shells_are_shown_the_way(machine):
    run = machine.run(["/bin/dash", "-c", f". {machine.repo}/scripts/env.sh"])
    assert run.returncode == 1 and run.stdout == ""
    assert run.stderr.count("\n") == 1 and "scripts/sft" in run.stderr


@pytest.mark.parametrize(
    "extras, installed", [(None, "--extra demo"), ("tpu", "--extra tpu"), ("", "")]
)
def test_sft_needs_no_sourcing(machine, tmp_path, extras, installed):
    """Called through a link, from another folder: words reach the command as they are."""
    machine.uv()
    program(machine.bin / "python3.12", WORKING)
    program(machine.repo / ".venv/bin/sft", 'printf "%s|" "$@"; exit 42')
    (tmp_path / "sft").symlink_to(machine.repo / "scripts/sft")
    given = {} if extras is None else {"SFT_EXTRAS": extras}
    words = ["train", "--config.data.reading.instruction=a  b", "", "*"]
    run = machine.run([str(tmp_path / "sft"), *words], tmp_path, **given)
    assert run.returncode == 42, run.stderr
    assert run.stdout == "".join(f"{word}|" for word in words)
    assert machine.calls()[0].partition(f"--python {machine.bin}/python3.12 ")[2] == installed


def test_without_a_python_uv_is_asked_for_one(machine):
    machine.uv()
    run = machine.source("demo")
    assert run.returncode == 0
    assert "uv will download 3.12" in run.stderr
    assert "--python 3.12 " in machine.calls()[0]


def test_the_real_check_refuses_an_old_python(machine):
    """The stand-ins above always pass it, so here it runs on this very interpreter."""
    check = (ROOT / "scripts" / "install.sh").read_text().split("-c '", 1)[1].split("'", 1)[0]
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0
    older = check.replace("(3, 12)", "(99, 0)")
    assert older != check
    assert subprocess.run([sys.executable, "-c", older]).returncode == 1


def test_second_call_does_nothing_until_the_lock_or_the_extras_change(machine):
    machine.uv()
    program(machine.bin / "python3.12", WORKING)
    assert machine.source("dev", "demo").returncode == 0
    for extras in (("dev", "demo"), ("demo",)):
        run = machine.source(*extras)
        assert (run.returncode, run.stderr) == (0, "")
    assert len(machine.calls()) == 1
    machine.source("bench")
    assert machine.calls()[-1].endswith("--extra bench --extra dev --extra demo")
    (machine.repo / "uv.lock").write_text("changed")
    machine.source("demo")
    assert len(machine.calls()) == 3
    shutil.rmtree(machine.repo / ".venv")
    assert machine.source("demo").returncode == 0
    assert machine.calls()[-1].endswith("--extra demo")
    assert len(machine.calls()) == 4


def test_network_is_used_only_when_the_cache_does_not_do(machine):
    machine.uv()
    program(machine.bin / "python3.12", WORKING)
    run = machine.source("demo", NEEDS_NETWORK="1")
    assert run.returncode == 0
    assert "downloading" in run.stderr
    assert ["--offline" in call for call in machine.calls()] == [True, False]


def test_failure_shows_what_uv_said_and_leaves_no_stamp(machine):
    machine.uv()
    program(machine.bin / "python3.12", WORKING)
    run = machine.source("demo", UV_FAILS="1")
    assert run.returncode == 1
    assert "no such package: xyz" in run.stderr
    assert machine.source("demo").returncode == 0
    assert len(machine.calls()) == 3


@pytest.mark.parametrize("place", [".local/bin/uv", ".cargo/bin/uv"])
def test_uv_off_the_path_is_found_and_a_broken_one_is_passed_over(machine, place):
    program(machine.bin / "uv", BROKEN)
    program(machine.home / place, UV)
    program(machine.bin / "python3.12", WORKING)
    assert machine.source("demo").returncode == 0
    assert len(machine.calls()) == 1


def test_uv_is_installed_with_pip_when_absent_or_too_old(machine):
    """The stand-in Python makes a venv whose pip provides uv."""
    install = f"""
if [[ "$*" == "-m venv "* ]]; then
  mkdir -p "$3/bin"; cp "$0" "$3/bin/python"
elif [[ "$*" == "-m pip install --quiet uv" ]]; then
  cat >"${{0%/*}}/uv" <<'END'
#!/bin/bash
unset FAKE_UV_VERSION
{UV}
END
  chmod +x "${{0%/*}}/uv"
fi"""
    machine.uv()
    (machine.bin / "cp").symlink_to(shutil.which("cp"))
    program(machine.bin / "python3.12", install)
    run = machine.source("demo", FAKE_UV_VERSION="0.4.30")
    assert run.returncode == 0, run.stderr
    assert "installing uv into .venv-uv" in run.stderr
    assert (machine.repo / ".venv-uv/bin/uv").exists()
    assert len(machine.calls()) == 1


def phase(path: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, ROOT / "scripts/phase.py", *arguments])


def test_phase_records_time_memory_and_exit_code(tmp_path):
    path = tmp_path / "phases.jsonl"
    code = "import sys, time; x = bytearray(200 << 20); time.sleep(0.2); sys.exit(42)"
    assert phase(path, str(path), "train", sys.executable, "-c", code).returncode == 42
    assert phase(path, "--since", "0", str(path), "install").returncode == 0
    train, install = [json.loads(line) for line in path.read_text().splitlines()]
    assert (train["phase"], train["exit"]) == ("train", 42)
    assert train["seconds"] >= 0.2 and train["peak_rss_bytes"] > 200 << 20
    assert install["seconds"] > 1e9


def test_an_environment_of_another_name_is_its_own(machine):
    machine.uv()
    program(machine.bin / "python3.12", WORKING)
    assert machine.source("dev").returncode == 0
    run = machine.source("beam", SFT_ENVIRONMENT=".venv-beam")
    assert run.stdout.strip() == str(machine.repo / ".venv-beam/bin/python")
    assert [call.split(" --extra ")[1:] for call in machine.calls()] == [["dev"], ["beam"]]
    assert machine.source("beam", SFT_ENVIRONMENT=".venv-beam").returncode == 0
    assert len(machine.calls()) == 2
