"""The reference tool of Lee et al. 2021 (arXiv:2107.06499), run on a file of bytes by one thread.

It is ``dedup_dataset`` of github.com/google-research/deduplicate-text-datasets, read and run at
commit 4e9888a (2024-05-21). Nothing of it is here: build it as its README says, in release mode,
and give the path. What is asked of it:

    make          --data-file F                                    writes F.table.bin
    self-similar  --data-file F --length-threshold N --cache-dir D --num-threads 1
    collect       --data-file F --cache-dir D --length-threshold N

``self-similar`` prints "Duplicates found: N", the windows that occur more than once; ``collect``
prints "out" and then, a line each, where the spans that they cover begin and end.
"""

import os
import re
import resource
import subprocess
import tempfile
from pathlib import Path

from sft.errors import UserError

COMMIT = "4e9888a"


def run(binary: Path, text: Path, length: int) -> dict:
    """All three commands on windows of ``length`` bytes.

    Call it in a small process: a child's peak is counted from what its parent held.

    Returns:
      ``seconds``: CPU of all three, what the system does for their files included.
      ``peak_bytes``: resident memory, the largest of the three, with program and text.
      ``found``: numbers of ``windows``, ``spans`` and ``bytes`` in spans.

    Raises:
      UserError: a command cannot run, fails or prints something else; in one line.
    """
    with tempfile.TemporaryDirectory(dir=text.parent) as temporary:
        folder = Path(temporary)
        (folder / "text").symlink_to(text.resolve())
        used, said = [], {}
        for name, flags in commands(folder, length).items():
            used.append(call([str(binary), name, *flags], folder))
            said[name] = (folder / "out").read_text()
    return {
        "seconds": sum(one.ru_utime + one.ru_stime for one in used),
        "peak_bytes": max(one.ru_maxrss for one in used) * 1024,
        "found": {"windows": duplicates(said["self-similar"]), **spans(said["collect"])},
    }


def commands(folder: Path, length: int) -> dict[str, list[str]]:
    """Flags of each command, in the order in which they run."""
    text = ["--data-file", str(folder / "text")]
    cache = ["--cache-dir", str(folder / "cache")]
    threshold = ["--length-threshold", str(length)]
    return {
        "make": text,
        "self-similar": [*text, *threshold, *cache, "--num-threads", "1"],
        "collect": [*text, *cache, *threshold],
    }


def call(command: list[str], folder: Path) -> resource.struct_rusage:
    """What one command used; its output is left in ``folder / "out"``."""
    name = command[1]
    with (folder / "out").open("wb") as out, (folder / "error").open("wb") as error:
        try:
            process = subprocess.Popen(command, stdout=out, stderr=error)
        except OSError as problem:
            raise UserError(f"{name}: cannot run {command[0]}: {problem.strerror}") from problem
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode < 0:
        raise UserError(
            f"{name}: killed by signal {-process.returncode}; 9 may mean no memory left"
        )
    if process.returncode:
        words = (folder / "error").read_text(errors="replace").split() or ["no message"]
        raise UserError(f"{name}: exit {process.returncode}: {' '.join(words)[:300]}")
    return used


def duplicates(said: str) -> int:
    """The number that ``self-similar`` prints."""
    found = re.search(r"^Duplicates found: (\d+)$", said, re.MULTILINE)
    if not found:
        raise UserError(f"self-similar: no line 'Duplicates found', expected as of commit {COMMIT}")
    return int(found[1])


def spans(said: str) -> dict[str, int]:
    """Number of spans that ``collect`` prints, and of the bytes in them."""
    if "No duplicates found" in said:
        return {"spans": 0, "bytes": 0}
    _, mark, rows = f"\n{said}".partition("\nout\n")
    pairs = [row.split() for row in rows.splitlines()]
    if not mark or not all(len(p) == 2 and p[0].isdigit() and p[1].isdigit() for p in pairs):
        raise UserError(f"collect: no spans after a line 'out', expected as of commit {COMMIT}")
    return {"spans": len(pairs), "bytes": sum(int(stop) - int(start) for start, stop in pairs)}
