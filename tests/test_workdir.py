import json
from pathlib import Path

import pytest

from sft.config import default, fingerprint, flatten
from sft.errors import UserError
from sft.run import directory as workdirs


def changed(**values):
    config = default()
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in values.items()})
    return config


@pytest.fixture
def run(tmp_path):
    """A run directory with something in it."""
    path = workdirs.prepare(default(), str(tmp_path / "a" / "run"))
    (path / "metrics.jsonl").write_text("")
    return path


def test_made_once_and_found_again(run):
    stored = (run / "config.json").read_text()
    assert json.loads(stored)["fingerprint"] == fingerprint(default())
    assert workdirs.prepare(default(), str(run)) == run
    assert (run / "config.json").read_text() == stored
    assert dict(flatten(workdirs.stored_config(str(run)))) == dict(flatten(default()))


def test_another_configuration_is_refused_and_nothing_overwritten(run):
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    with pytest.raises(UserError) as caught:
        workdirs.prepare(changed(optim__learning_rate=1.0, seed=3), str(run))
    message = str(caught.value)
    assert "optim.learning_rate: 0.0002 there, 1.0 here" in message
    assert "seed: 0 there, 3 here" in message
    assert "--workdir" in message and "\n" not in message
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    "change",
    [
        {"train__save_every": 7},
        {"train__keep_best": 3},
        {"eval__batch_size": 1},
        {"mesh__fsdp": 2},
        {"model__remat": "none"},
        {"data__test": "other.jsonl"},
    ],
)
def test_what_changes_no_number_may_change(run, change):
    assert workdirs.prepare(changed(**change), str(run)) == run


@pytest.mark.parametrize("change", [{"data__train": "x"}, {"train__batch_size": 8}, {"seed": 1}])
def test_what_changes_a_number_may_not(run, change):
    with pytest.raises(UserError, match="another configuration"):
        workdirs.prepare(changed(**change), str(run))


def test_a_run_from_before_a_setting_has_its_default(run):
    text = json.loads((run / "config.json").read_text())
    del text["config"]["lora.start"], text["config"]["optim.learning_rate"]
    (run / "config.json").write_text(json.dumps(text))
    assert workdirs.prepare(changed(), str(run)) == run
    with pytest.raises(UserError, match=r"\(lora\.start: '' there, 'adapter' here\)"):
        workdirs.prepare(changed(lora__start="adapter"), str(run))
    (run / "config.json").write_text(json.dumps(text | {"config": text["config"] | {"gone": 1}}))
    with pytest.raises(UserError, match=r"gone: 1 there, None here"):
        workdirs.prepare(changed(), str(run))


def test_a_mistake_can_be_corrected_before_there_is_a_result(tmp_path):
    workdirs.prepare(changed(data__train="typo.jsonl"), str(tmp_path))
    workdirs.prepare(changed(data__train="right.jsonl"), str(tmp_path))
    assert workdirs.stored_config(str(tmp_path)).data.train == "right.jsonl"


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"config": 3}'])
def test_damaged_config(run, text):
    (run / "config.json").write_text(text)
    for call in (
        lambda: workdirs.stored_config(str(run)),
        lambda: workdirs.prepare(default(), run),
    ):
        with pytest.raises(UserError, match=r"config\.json: (unreadable|no 'config')"):
            call()


def test_no_run_there(tmp_path):
    with pytest.raises(UserError, match=r"config\.json: no run there\. Give --config"):
        workdirs.stored_config(str(tmp_path))


def test_a_file_is_no_workdir(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"--workdir=.*file: File exists"):
        workdirs.prepare(default(), str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("place", ["/proc", "/proc/run"])
def test_unwritable_place(place):
    with pytest.raises(UserError, match=place):
        workdirs.prepare(default(), place)


def test_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "value.json"
    workdirs.write_json(path, {"é": 1})
    with pytest.raises(TypeError):
        workdirs.write_json(path, {"é": object()})
    assert json.loads(path.read_text()) == {"é": 1}
    assert [p.name for p in path.parent.iterdir()] == ["value.json"]


def test_environment(tmp_path):
    workdirs.write_environment(tmp_path, ["TFRT_CPU_0"])
    found = json.loads((tmp_path / "environment.json").read_text())
    assert found["devices"] == ["TFRT_CPU_0"]
    if Path("/proc/cpuinfo").exists():
        assert found["processor"].endswith(")") and len(found["processor"]) > 5
    assert found["versions"]["jax"] and found["python"].startswith("3.")
