"""What a report says is to be done next."""

import json
import shlex

import pytest
from run_directory import make_run, write_eval, write_json

from sft.commands.report import main
from sft.commands.table import COMMANDS, FLAGS
from sft.report import compare, onward, sweep
from sft.report.load import load_run


@pytest.fixture
def workdir(tmp_path):
    return make_run(tmp_path / "a run")


def remove(workdir, *patterns):
    for pattern in patterns:
        for path in workdir.glob(pattern):
            path.unlink()


def configure(workdir, **values):
    config = json.loads((workdir / "config.json").read_text())
    config["config"] |= {key.replace("__", "."): value for key, value in values.items()}
    write_json(workdir / "config.json", config)


def commands(workdir) -> list[str]:
    return [*onward.of_run(load_run(workdir))]


def test_a_scored_run_is_there_to_be_used(workdir, capsys):
    where = f"'{workdir}'"
    assert commands(workdir) == [
        f"sft chat --workdir={where} --beside",
        f"sft export --workdir={where} --format=peft,safetensors",
    ]
    configure(workdir, lora__rank=0)
    assert commands(workdir)[1] == f"sft export --workdir={where} --format=safetensors"
    main([str(workdir)])
    last = capsys.readouterr().out.splitlines()[-2:]
    assert last[0].startswith(f"next: sft chat --workdir={where} --beside ")
    assert last[1] == f"      {commands(workdir)[1]}  for other libraries"


def test_what_is_lacking_is_made_first(workdir):
    where = f"--workdir='{workdir}'"
    remove(workdir, "eval/best.*")
    assert commands(workdir) == [f"sft eval {where}", f"sft report '{workdir}'"]
    remove(workdir, "eval/*")
    configure(workdir, data__test="test.jsonl")
    scored = [f"sft eval {where} --checkpoint=base", f"sft eval {where}"]
    assert commands(workdir) == [*scored, f"sft report '{workdir}'"]
    configure(workdir, data__test="")
    assert commands(workdir)[:2] == [f"{command} --config.data.test=FILE" for command in scored]
    remove(workdir, "DONE")
    assert onward.of_run(load_run(workdir)) == {f"sft train {where}": "go on with the training"}
    remove(workdir, "metrics.jsonl")
    assert onward.of_run(load_run(workdir)) == {f"sft train {where}": "train it"}


def test_every_command_is_one_and_has_the_flags(workdir):
    for state in ("nothing", "eval/*", "DONE"):
        remove(workdir, state)
        for text in commands(workdir):
            program, name, *words = shlex.split(text)
            assert program == "sft" and name in COMMANDS
            flags = [word.removeprefix("--").partition("=")[0] for word in words if word[0] == "-"]
            assert all(f in FLAGS or f.startswith("config.") for f in flags), text


def test_the_best_of_several_runs_is_named(tmp_path, capsys):
    good, bad = (make_run(tmp_path / name) for name in ("good", "bad"))
    write_eval(bad, "best", "test", [False] * 90)
    found = compare.compare([load_run(bad), load_run(good)])
    assert onward.of_comparison(found) == {
        f"sft report {good}": "look at good, the best on test",
        f"sft export --workdir={good} --format=peft,safetensors": "for other libraries",
    }
    write_eval(bad, "best", "test", [i % 8 != 3 or i == 3 for i in range(90)])
    found = compare.compare([load_run(good), load_run(bad)])
    assert onward.of_comparison(found)[f"sft report {bad}"] == (
        "look at bad, not surely the best on test"
    )
    main([str(good), str(bad)], str(tmp_path / "two.html"))
    assert f"\nnext: sft report {bad} " in capsys.readouterr().out


def test_a_checkpoint_that_is_not_the_best_is_named(tmp_path):
    runs = [make_run(tmp_path / name) for name in ("one", "two")]
    for i, run in enumerate(runs):
        remove(run, "eval/best.*")
        write_eval(run, "step60", "test", [j > 40 * i for j in range(90)])
    (_, export) = onward.of_comparison(compare.compare(list(map(load_run, runs))))
    assert export == f"sft export --workdir={runs[0]} --format=peft,safetensors --checkpoint=60"


def test_a_sweep_goes_on_or_names_the_best_seed_of_the_best_mean(tmp_path, capsys):
    points = {}
    for rate, counts in ((1e-4, (40, 80)), (1e-3, (70, 72))):
        for seed, right in enumerate(counts):
            name = f"rate={rate},seed={seed}"
            points[name] = {}
            run = make_run(tmp_path / name)
            configure(run, optim__learning_rate=rate, seed=seed)
            write_eval(run, "best", "test", [i < right for i in range(90)])
    write_json(tmp_path / "sweep.json", {"points": points})
    best = tmp_path / "rate=0.001,seed=1"
    assert onward.of_sweep(sweep.load(tmp_path)) == {
        f"sft report {best}": f"look at {best.name}, best seed of the best mean on test",
        f"sft export --workdir={best} --format=peft,safetensors": "for other libraries",
    }
    write_json(tmp_path / "sweep.json", {"points": points | {"rate=1,seed=0": {}}})
    main([str(tmp_path)])
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "next: the same sft sweep again  train and score 1 point more"
