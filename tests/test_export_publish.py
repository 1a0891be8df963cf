"""An export appears whole or not at all, whatever ends the command, and keeps to the umask."""

import dataclasses
import os
import signal
import stat

import pytest
import tiny_run

from sft.errors import UserError
from sft.export import formats, publish

shared, registered = tiny_run.shared, tiny_run.registered


def fill(target, text, overwrite=False):
    with publish.published(target, overwrite) as folder:
        (folder / "inner").mkdir(mode=0o700)
        (folder / "inner" / "file").write_text(text)
        (folder / "inner" / "file").chmod(0o600)


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o027])
def test_rights_are_the_usual_ones(tmp_path, mask):
    before = os.umask(mask)
    try:
        fill(tmp_path / "out" / "x", "new")
    finally:
        os.umask(before)
    for path in (tmp_path / "out" / "x", *(tmp_path / "out" / "x").rglob("*")):
        usual = 0o777 if path.is_dir() else 0o666
        assert stat.S_IMODE(path.stat().st_mode) == usual & ~mask


def test_an_earlier_export_is_there_until_the_new_one_is(tmp_path, monkeypatch):
    target = tmp_path / "x"
    fill(target, "old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", None)  # which would leave a moment without any
        fill(target, "new", overwrite=True)
    assert (target / "inner" / "file").read_text() == "new"
    monkeypatch.setattr(publish, "_exchange", lambda one, other: False)  # as on some disks
    fill(target, "newer", overwrite=True)
    assert (target / "inner" / "file").read_text() == "newer"
    assert os.listdir(tmp_path) == ["x"]


def test_an_export_that_appeared_meanwhile_stays(tmp_path):
    target = tmp_path / "x"
    with pytest.raises(UserError, match="there already"), publish.published(target, False):
        fill(target, "other")
    assert (target / "inner" / "file").read_text() == "other" and os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_nothing_and_the_command_can_be_run_again(
    shared, tmp_path, monkeypatch, number
):
    before = signal.getsignal(number)
    right = formats.FORMATS["peft"]

    def write(*given):
        right.write(*given)
        os.kill(os.getpid(), number)

    words = [f"--out={tmp_path / 'out'}", "--format=orbax,peft"]
    with monkeypatch.context() as patch:
        patch.setitem(formats.FORMATS, "peft", dataclasses.replace(right, write=write))
        assert shared.main("export", "done", *words) == 42
    assert os.listdir(tmp_path / "out") == [] and signal.getsignal(number) == before
    assert shared.main("export", "done", *words) == 0
    assert sorted(os.listdir(tmp_path / "out")) == ["orbax", "peft"]


def test_a_link_in_its_place_is_replaced(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "x").symlink_to(tmp_path / "other")
    fill(tmp_path / "x", "new", overwrite=True)
    assert sorted(os.listdir(tmp_path)) == ["other", "x"]
    assert not (tmp_path / "x").is_symlink() and os.listdir(tmp_path / "other") == []


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    for target, said in (
        (tmp_path / "file" / "x", "cannot be written (File exists). Give another --out."),
        (tmp_path / "file", "a file, where a folder is to be. Give another --out."),
        (publish.Path("/proc/nowhere/x"), "cannot be written (No such file or directory)"),
    ):
        for overwrite in (False, True):
            with pytest.raises(UserError) as error:
                fill(target, "new", overwrite)
            assert said in str(error.value)
    assert os.listdir(tmp_path) == ["file"]


def test_a_bucket_is_no_disk(shared, capsys):
    assert shared.main("export", "done", "--format=peft", "--out=gs://bucket/x") == 2
    assert "writes to a disk: give --out=DIR there" in capsys.readouterr().err
