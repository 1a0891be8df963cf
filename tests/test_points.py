"""Points of a sweep, and what is no point."""

import pytest

from sft.config import default
from sft.errors import UserError
from sft.tune import points
from sft.tune.points import grid, paired, seeds


def test_grids_pairs_and_seeds():
    assert list(grid({"a": [1, 2], "b": "xy"})) == [
        {"a": 1, "b": "x"},
        {"a": 1, "b": "y"},
        {"a": 2, "b": "x"},
        {"a": 2, "b": "y"},
    ]
    both = list(paired({"a": [1, 2], "b": [3, 4]}))
    assert both == [{"a": 1, "b": 3}, {"a": 2, "b": 4}]
    assert list(seeds(2, both))[1:3] == [{"a": 1, "b": 3, "seed": 1}, {"a": 2, "b": 4, "seed": 0}]
    assert list(seeds(2)) == [{"seed": 0}, {"seed": 1}]
    with pytest.raises(ValueError):
        list(paired({"a": [1], "b": [1, 2]}))


def test_flags_are_read_as_what_their_key_holds():
    given = {"optim.learning_rate": "1e-3,2", "lora.rslora": "true", "optim.schedule": "linear"}
    assert points.from_flags(given | {"lora.rank": "4"}) == [
        {
            "optim.learning_rate": rate,
            "lora.rslora": True,
            "optim.schedule": "linear",
            "lora.rank": 4,
        }
        for rate in (1e-3, 2.0)
    ]


@pytest.mark.parametrize(
    ("key", "text", "said"),
    [
        ("optim.learning_rat", "1", r"no such key. Did you mean 'optim.learning_rate'"),
        ("lora.rank", "4,8.5", r"--sweep.lora.rank: '8.5' is no int"),
        ("lora.rslora", "yes", r"'yes' is no bool"),
        ("optim.learning_rate", "1e-3,", r"'' is no float"),
    ],
)
def test_flags_that_are_none(key, text, said):
    with pytest.raises(UserError, match=said):
        points.from_flags({key: text})


def test_all_unsound_points_are_named_and_equal_ones_are_one():
    wanted = [
        {"lora.rank": 4},
        {"lora.rank": -1},
        {"lora.rnk": 4},
        {"optim.learning_rate": "high"},
        {"train.epochs": True},
    ]
    with pytest.raises(UserError) as found:
        points.check(default(), wanted, "p.py")
    text = str(found.value)
    assert text.startswith("p.py: nothing was started. point 2 (lora.rank = -1): ")
    assert "point 3 (lora.rnk = 4): lora.rnk: no such key. Did you mean 'lora.rank'?" in text
    assert "'high' is no float" in text and "True is no int" in text and "point 1" not in text
    rates = [{"optim.learning_rate": value} for value in (1, 1.0, 2)]
    made = points.check(default(), rates, "p.py")
    assert [point.config.optim.learning_rate for point in made] == [1.0, 2.0]
    assert isinstance(made[0].config.optim.learning_rate, float)
    with pytest.raises(UserError, match="no points"):
        points.check(default(), [], "p.py")


def test_names_tell_points_apart_and_are_directories():
    assert points.name({}) == "base"
    assert points.name({"lora.rank": 4, "seed": 0}) == "rank=4,seed=0"
    both = points.name({"data.split.seed": 1, "judge.seed": 2})
    assert both == "data.split.seed=1,judge.seed=2"
    slashes = [points.name({"data.train": path}) for path in ("a/b", "a_b", "a b")]
    assert len(set(slashes)) == 3 and not any("/" in name or " " in name for name in slashes)
    long = [points.name({"data.train": "x" * 300 + end}) for end in "ab"]
    assert len(set(long)) == 2 and all(len(name) <= points.LONGEST for name in long)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "no such file"),
        ("def pints(): pass", r"no points\(\) in it"),
        ("def points():\n    return [1]", "gave 1, expected dictionaries"),
        ("def points():\n    x = 1\n    return x / 0", r"p\.py:3: ZeroDivisionError"),
        ("def points(:", "SyntaxError"),
    ],
)
def test_files_without_points(tmp_path, text, said):
    path = tmp_path / "p.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=said):
        points.from_file(str(path))


def test_a_file_may_yield_and_use_the_helpers(tmp_path):
    path = tmp_path / "p.py"
    path.write_text(
        "from sft.tune.points import seeds\n\ndef points():\n    yield from seeds(2, [{'a': 1}])\n"
    )
    assert points.from_file(str(path)) == [{"a": 1, "seed": 0}, {"a": 1, "seed": 1}]
