"""scripts/test.sh: which tests it runs, and in which environment; with stand-ins for the tools."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from test_scripts import WORKING, program

ROOT = Path(__file__).parents[1]
MAIN = "-m not slow and not beam and not cloud"
ON_BEAM, ON_CLOUD = "-qq -m beam and not slow", "-qq -m cloud and not slow"
ABREAST = " --numprocesses auto --maxprocesses 4 --dist loadfile --durations=15"
ALL_SLOW = f"-m not beam and not cloud{ABREAST} -x"


@pytest.mark.parametrize(
    ("arguments", "codes", "code", "calls"),
    [
        ([], "0 0 0", 0, [MAIN + ABREAST, ON_BEAM + " B"]),
        (["--slow", "-x"], "0 0 0", 0, [ALL_SLOW, "-qq -m beam -x B", "-qq -m cloud -x C"]),
        ([], "1 0 0", 1, [MAIN + ABREAST]),
        ([], "0 1 0", 1, [MAIN + ABREAST, ON_BEAM + " B"]),
        (["--slow", "-x"], "0 0 1", 1, [ALL_SLOW, "-qq -m beam -x B", "-qq -m cloud -x C"]),
        (["A", "-k", "x"], "0", 0, [MAIN + " A -k x"]),
        (["-k", "x"], "5", 5, [MAIN + " -k x"]),
        (["B::test"], "5 0", 0, [MAIN + " B::test", ON_BEAM + " B::test"]),
        (["C::test"], "5 0", 0, [MAIN + " C::test", ON_CLOUD + " C::test"]),
        (["B", "A"], "0 5", 0, [MAIN + " B A", ON_BEAM + " B A"]),
        (["B", "C"], "5 5 5", 5, [MAIN + " B C", ON_BEAM + " B C", ON_CLOUD + " B C"]),
    ],
)
def test_tests_with_packages_of_their_own_run_with_the_whole_suite_or_when_named(
    tmp_path, arguments, codes, code, calls
):
    """With stand-ins for the tools; ``A`` to ``C`` are test files, ``B`` on Beam."""
    files = {letter: f"tests/test_{letter.lower()}.py" for letter in "ABC"}
    for folder in ("scripts", "tests", "bin"):
        (tmp_path / folder).mkdir()
    shutil.copy(ROOT / "scripts" / "test.sh", tmp_path / "scripts")
    (tmp_path / files["A"]).write_text("")
    (tmp_path / files["B"]).write_text("pytestmark = pytest.mark.beam")
    (tmp_path / files["C"]).write_text("pytestmark = pytest.mark.cloud")
    program(tmp_path / "scripts/env.sh", 'echo "${SFT_ENVIRONMENT-} $*" >>environments')
    for tool in ("ruff", "ty"):
        program(tmp_path / "bin" / tool, WORKING)
    program(
        tmp_path / "bin/pytest", 'echo "$*" >>calls; exit "$(cut -d" " -f"$(wc -l <calls)" codes)"'
    )
    (tmp_path / "codes").write_text(codes)

    def named(text):
        return "".join(files.get(letter, letter) for letter in text)

    run = subprocess.run(
        [tmp_path / "scripts/test.sh", *map(named, arguments)],
        env={"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == code, run.stderr
    assert (tmp_path / "calls").read_text().splitlines() == [*map(named, calls)]
    main = " dev demo plan" if "--slow" in arguments else " dev demo"
    environments = [main]
    if any("-m beam" in call for call in calls):
        environments += [".venv-beam beam test"]
    if any("-m cloud" in call for call in calls):
        environments += [".venv-xpk xpk", ".venv-cloud submit test"]
    assert (tmp_path / "environments").read_text().splitlines() == environments
