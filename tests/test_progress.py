import io

import pytest

from sft import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("kind", [Terminal, io.StringIO])
def test_a_phase_is_told_to_terminals_only(monkeypatch, kind):
    monkeypatch.setattr("sys.stderr", kind())
    with progress.phase("reading train"):
        during = progress.sys.stderr.getvalue()
    after = progress.sys.stderr.getvalue()
    if kind is Terminal:
        assert during == "reading train …\r" and after.startswith(f"{during}reading train: 0.")
    else:
        assert during == after == ""
