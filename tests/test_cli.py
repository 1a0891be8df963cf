import importlib
import inspect
import json
import os
import re
import signal
import subprocess
import sys

import pytest
import tiny_run

from sft import cli
from sft.commands import table

shared, registered = tiny_run.shared, tiny_run.registered


@pytest.mark.parametrize("words, code", [(["--help"], 0), (["help"], 0), ([], 2)])
def test_help(capsys, words, code):
    assert cli.main(["sft", *words]) == code
    out = capsys.readouterr().out
    assert all(word in out for word in [*table.COMMANDS, "--config", "--workdir", "42"])


@pytest.mark.parametrize("command", table.COMMANDS)
def test_help_of_a_command_has_its_flags_and_no_others(capsys, command):
    assert cli.main(["sft", *command.split(), "--help"]) == 0
    out = capsys.readouterr().out
    entry = table.COMMANDS[command]
    flags = set(re.findall(r"^  --(\w+)\b(?!\.)", out, re.MULTILINE))
    own = {"workdir" if name == table.RUNS else name for name in entry.flags} & set(table.FLAGS)
    assert flags - {"config"} == own | {"json"}
    assert ("config" in flags) == entry.has_config
    assert (
        "--checkpoint" not in own or f"(default: {entry.defaults.get('checkpoint', 'best')})" in out
    )


@pytest.mark.parametrize("command", table.COMMANDS)
def test_flags_reach_a_function_by_name(command):
    module = importlib.import_module(table.module_of(command))
    entry = table.COMMANDS[command]
    wanted = {*entry.flags, *(["config"] if entry.has_config else [])}
    assert set(inspect.signature(module.main).parameters) == wanted


def test_json_is_the_only_thing_on_standard_output(shared, tmp_path, capfd):
    noisy = tmp_path / "config.py"
    noisy.write_text(shared.config.read_text() + "\nprint('from the configuration file')\n")
    words = [f"--config={noisy}", f"--workdir={tmp_path / 'run'}"]
    for command in ("data", "train", "eval"):
        assert cli.main(["sft", command, *words, "--json"]) == 0
        out, err = capfd.readouterr()
        assert out.count("\n") == 1 and isinstance(json.loads(out), dict)
        assert "from the configuration file" in err
    assert set(json.loads(out)) == {"test"}


@pytest.mark.parametrize(
    "word, wanted",
    [("--json=true", True), ("--nojson", False), ("--no-json", False), ("-json", True)],
)
def test_other_spellings_of_json(shared, tmp_path, capsys, word, wanted):
    assert shared.main("data", tmp_path, word) == 0
    assert capsys.readouterr().out.startswith("{") == wanted


def test_only_training_has_a_profile(shared, tmp_path, capsys):
    assert shared.main("data", tmp_path, "--profile") == 2
    assert "--profile is of sft train" in capsys.readouterr().err


def test_without_json_it_says_where_it_wrote(shared, tmp_path, capsys):
    assert shared.main("data", tmp_path) == 0
    out = capsys.readouterr().out
    assert f"wrote {tmp_path / 'data' / 'report.json'}" in out
    report = json.loads((tmp_path / "data" / "report.json").read_text())["sets"]
    assert {name: part["rows"] for name, part in report.items()} == tiny_run.SIZES


def test_configuration_of_the_run_with_changes(shared, tmp_path, capsys):
    assert shared.main("data", tmp_path) == 0
    words = [f"--workdir={tmp_path}", "--config.data.test", str(shared.path / "train.jsonl")]
    assert cli.main(["sft", "data", *words, "--config.eval.top_k=3", "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])["sets"]
    assert result["test train"]["content"] == result["train"]["content"]


def test_a_bug_is_a_bug(shared, tmp_path, capsys, monkeypatch):
    from sft.commands import data

    def fail(**_):
        raise ZeroDivisionError("seven")

    monkeypatch.setattr(data, "main", fail)
    assert shared.main("data", tmp_path, "--json") == 1
    out, err = capsys.readouterr()
    assert out == "" and "ZeroDivisionError: seven" in err and err.endswith("this is a bug.\n")


@pytest.mark.parametrize(
    "error, code, said",
    [
        (cli.UserError("file:3: wrong."), 2, "sft: file:3: wrong.\n"),
        (cli.Preempted("SIGTERM at step 3."), 42, "SIGTERM at step 3. Run the same command again"),
        (KeyboardInterrupt(), 42, "interrupted"),
        (OSError(28, "No space left on device", "/a/b"), 2, "/a/b: no space left on device"),
    ],
)
def test_exit_codes(shared, tmp_path, capsys, monkeypatch, error, code, said):
    from sft.commands import data

    def fail(**_):
        raise error

    monkeypatch.setattr(data, "main", fail)
    assert shared.main("data", tmp_path) == code
    err = capsys.readouterr().err
    assert said in err and "Traceback" not in err and err.count("\n") == 1


BROKEN = {
    "syntax": ("def get_config(:\n", ["{file}:1", "invalid syntax"]),
    "unknown key": (
        "from sft.config import default\ndef get_config():\n    c = default()\n"
        "    c.optim.learnin_rate = 1.0\n    return c\n",
        ["{file}:4", "learnin_rate", '"learning_rate"'],
    ),
    "wrong type": (
        "from sft.config import default\ndef get_config():\n    c = default()\n"
        "    c.seed = 'a'\n    return c\n",
        ["{file}:4", "seed"],
    ),
    "at import": ("x = 1\ny = nothing\n", ["{file}:2", "NameError", "nothing"]),
    "no function": ("x = 1\n", ["{file}: no get_config()"]),
    "no return": ("def get_config():\n    pass\n", ["{file}: get_config() returned NoneType"]),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_configuration_file(tmp_path, capsys, name):
    text, fragments = BROKEN[name]
    path = tmp_path / "broken.py"
    path.write_text(text)
    assert cli.main(["sft", "train", f"--config={path}", f"--workdir={tmp_path / 'run'}"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "Traceback" not in err
    assert all(f.format(file=path) in err for f in fragments), err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "words, fragments",
    [
        (["trian"], ["no command 'trian'", "Did you mean 'train'?"]),
        (["train"], ["--workdir=DIR is missing"]),
        (["train", "--workdir=/nothing/there"], ["/nothing/there/config.json", "--config=FILE"]),
        (["train", "C", "W", "--config.optim.lr=1"], ["--config.optim.lr", "optim.learning_rate"]),
        (["train", "C", "W", "--config.trian.epochs=1"], ["--config.trian.epochs", "train.epochs"]),
        (
            ["train", "C", "W", "--wrkdir=x"],
            ["--wrkdir", "Did you mean 'workdir'?", "See sft train --help."],
        ),
        (["eval", "suites", "C", "W"], ["unexpected 'suites'", "see sft eval --help."]),
        (["train", "C", "W", "--cofig.seed=1"], ["--cofig.seed", "Did you mean 'config'?"]),
        (["train", "C", "W", "--config.train.epochs=1.5"], ["--config.train.epochs=1.5"]),
        (["train", "C", "W", "--config.train.epochs=0"], ["config.train.epochs = 0", "above 0"]),
        (["train", "C", "W", "--config.optim=3"], ["--config.optim=3"]),
        (["train", "C", "W", "extra"], ["unexpected 'extra'"]),
        (["train", "C", "--workdir"], ["--workdir: expected one argument"]),
        (["report", "C", "W"], ["sft report takes no --config", "Leave it out"]),
        (["sweep", "C", "W", "--jobs=two"], ["--jobs: 'two' is not a whole number"]),
        (["sweep", "C", "W", "--dry_run=maybe"], ["--dry_run: ", "'maybe'"]),
    ],
)
def test_command_line(shared, tmp_path, capsys, words, fragments):
    place = {"C": f"--config={shared.config}", "W": f"--workdir={tmp_path / 'run'}"}
    assert cli.main(["sft", *(place.get(word, word) for word in words)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "Traceback" not in err
    assert all(fragment in err for fragment in fragments), err


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_reader_that_stops_reading(unbuffered):
    process = subprocess.Popen(
        [sys.executable, "-m", "sft", "--help"],
        cwd=tiny_run.ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 128 + signal.SIGPIPE
