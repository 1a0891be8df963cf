"""``sft eval rate`` and ``sft eval calibrate``: from the page to a judge that is fit, or not."""

import csv
import json
import random
import re

import pytest
from judge_server import serving

from sft import cli
from sft.eval.judge import remote

LONG = "x" * 40


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Two arms, 40 rows. A row's true score is in its source, and the answers tell nothing."""
    monkeypatch.setattr(remote, "delay", lambda attempt, max_wait: 0.001)
    rng = random.Random(0)
    for arm, best in (("best", 5), ("base", 3)):
        rows = [
            {
                "source": f"t.jsonl:{i + 1}",
                "prompt": f"prompt <b>{i}</b> </script>",
                "expected": f"reference {i}",
                "predicted": f"answer {i} worth {rng.randint(max(1, best - 3), best)} {LONG[:i]}",
                "correct": False,
            }
            for i in range(40)
        ]
        path = tmp_path / "run" / "eval" / f"{arm}.test.predictions.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "config.py").write_text(
        "from sft.config import default\ndef get_config():\n    return default()\n"
    )
    return tmp_path / "run"


def command(run, name, *more):
    words = (f"--config={run.parent / 'config.py'}", f"--workdir={run}")
    return cli.main(["sft", "eval", name, *words, *more])


def judged(run, reply, *more, arms=("best", "base")):
    """All arms judged by ``reply(answers)``, which gives a score or a winner."""

    def answer(prompt):
        field = "winner" if "<answer_A>" in prompt else "score"
        worth = [int(w) for w in re.findall(r"<answer.*>\n.* worth (\d)", prompt)]
        return json.dumps({"reason": "r", field: reply(*worth)})

    with serving(answer) as (_, url):
        for arm in arms:
            words = ("--config.judge.backend=openai", "--config.judge.model=m", *more)
            url_word = f"--config.judge.url={url}"
            assert command(run, "judge", url_word, *words, f"--checkpoint={arm}") == 0


def page_items(run, mode="pointwise"):
    text = (run / "eval" / f"judge.rate.{mode}.html").read_text()
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    return json.loads(data.group(1))["items"]


def write_ratings(path, rows, column="score"):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("id", "rater", column), *rows])
    return path


def worth(answer):
    return int(answer.split(" worth ")[1][0])


def rated(run, path, rater="ann", noise=0.0, seed=0):
    rng = random.Random(seed)
    rows = []
    for item in page_items(run):
        value = worth(item["answers"][0])
        if rng.random() < noise:
            value = min(5, max(1, value + rng.choice([-1, 1])))
        rows.append((item["id"], rater, value))
    return write_ratings(path, rows)


def calibration(run, mode="pointwise"):
    return json.loads((run / "eval" / f"judge.calibration.{mode}.json").read_text())


def test_the_page_is_blind_and_self_contained(run):
    assert command(run, "rate", "--config.judge.sample=20") == 0
    text = (run / "eval" / "judge.rate.pointwise.html").read_text()
    items = page_items(run)
    assert len(items) == 40 == len({item["id"] for item in items})
    assert not re.search(r'https?://|src=|href="', text)
    assert "best" not in {key for item in items for key in item} and '"arms"' not in text
    assert "base.test" not in text and "t.jsonl" not in text
    known = json.loads((run / "eval" / "judge.rate.pointwise.json").read_text())["items"]
    assert {item["id"] for item in items} == set(known)
    assert sum(entry["arms"] == ["best"] for entry in known.values()) == 20
    rows = {
        arm: {e["row"] for e in known.values() if e["arms"] == [arm]} for arm in ("best", "base")
    }
    assert rows["best"] == rows["base"]
    order = [known[item["id"]]["arms"][0] for item in items]
    assert order != sorted(order) and order != sorted(order, reverse=True)
    assert items[0]["prompt"].endswith("</script>")  # came through whole
    assert command(run, "rate", "--config.judge.sample=20") == 0
    assert (run / "eval" / "judge.rate.pointwise.html").read_text() == text


def test_a_judge_that_sees_what_people_see(run, tmp_path, capsys):
    assert command(run, "rate", "--config.judge.sample=30") == 0
    judged(run, lambda w: w)
    a = rated(run, tmp_path / "a.csv", "ann")
    b = rated(run, tmp_path / "b.csv", "bob", noise=0.3)
    capsys.readouterr()
    assert command(run, "calibrate", f"--ratings={a},{b}") == 0
    found = calibration(run)
    assert found["fit"] and "its lower bound is not below" in found["why"]
    judge, people = found["agreement"]["judge"], found["agreement"]["people"]
    assert judge["rows"] == people["rows"] == 60
    # Ann says what the judge says, so both pairs with the judge average 1 and Bob with Ann.
    assert judge["kappa"]["value"] == pytest.approx((1 + people["kappa"]["value"]) / 2)
    assert judge["alpha"]["value"] > people["alpha"]["value"] > 0.7
    assert set(found["agreement"]["by_arm"]) == {"best", "base"}
    assert found["ratings"]["raters"] == {"ann": 60, "bob": 60}
    for entry in found["corrected"]:
        assert entry["low"] < entry["value"] < entry["high"]
        assert (entry["rated"], entry["judged"]) == (30, 10)
    out = capsys.readouterr().out
    assert "fit (weighted kappa" in out and "UNFIT" not in out and "people, people" in out


def test_an_unfit_judge_is_called_so(run, tmp_path, capsys):
    assert command(run, "rate") == 0
    judged(run, lambda w: 5 - w % 2)
    assert command(run, "calibrate", f"--ratings={rated(run, tmp_path / 'a.csv')}") == 0
    found = calibration(run)
    assert not found["fit"] and found["threshold"] == 0.4
    assert "UNFIT: do not rely on its scores alone" in capsys.readouterr().out
    assert found["agreement"]["people"] is None


def test_a_judge_that_always_says_the_same_is_unfit(run, tmp_path):
    assert command(run, "rate") == 0
    judged(run, lambda w: 4)
    assert command(run, "calibrate", f"--ratings={rated(run, tmp_path / 'a.csv')}") == 0
    assert calibration(run)["agreement"]["judge"]["spearman"]["value"] is None
    assert not calibration(run)["fit"]


def test_a_kind_judge_is_corrected(run, tmp_path):
    assert command(run, "rate", "--config.judge.sample=20") == 0
    judged(run, lambda w: min(5, w + 1))
    assert command(run, "calibrate", f"--ratings={rated(run, tmp_path / 'a.csv')}") == 0
    lines = (run / "eval" / "base.test.predictions.jsonl").read_text().splitlines()
    truth = [worth(json.loads(line)["predicted"]) for line in lines]
    (entry,) = [e for e in calibration(run)["corrected"] if e["arm"] == "base"]
    assert entry["judge"] == pytest.approx(sum(truth) / 40 + 1)  # base has nothing above 3
    assert entry["value"] == pytest.approx(sum(truth) / 40, abs=0.25)
    assert entry["low"] < sum(truth) / 40 < entry["high"] < entry["judge"]


def test_rows_without_a_verdict_stay_in_the_corrected_score(run, tmp_path):
    assert command(run, "rate", "--config.judge.sample=20") == 0
    judged(run, lambda w: w if w > 1 else "none", "--config.judge.retries=0")
    assert command(run, "calibrate", f"--ratings={rated(run, tmp_path / 'a.csv')}") == 0
    found = calibration(run)
    (entry,) = [e for e in found["corrected"] if e["arm"] == "base"]
    assert found["ratings"]["rows_without_verdict"] > 0
    assert (entry["rated"], entry["judged"]) == (20, 20)
    assert entry["low"] < entry["value"] < entry["judge"]


def test_pairwise(run, tmp_path):
    mode = "--config.judge.mode=pairwise"
    assert command(run, "rate", mode) == 0
    judged(run, lambda a, b: "A" if a > b else "B" if b > a else "tie", mode, arms=["best"])
    items = page_items(run, "pairwise")
    rows = []
    for item in items:
        a, b = map(worth, item["answers"])
        rows.append((item["id"], "ann", "A" if a > b else "B" if b > a else "tie"))
    file = write_ratings(tmp_path / "a.csv", rows, "winner")
    assert command(run, "calibrate", mode, f"--ratings={file}") == 0
    found = calibration(run, "pairwise")
    known = json.loads((run / "eval" / "judge.rate.pairwise.json").read_text())["items"]
    first = [known[item["id"]]["arms"][0] for item in items]
    assert 8 < first.count("best") < 32  # shown in a random order
    assert found["agreement"]["judge"]["kappa"]["value"] == pytest.approx(1.0)
    verdict = json.loads((run / "eval" / "judge.best_vs_base.test.json").read_text())
    (entry,) = found["corrected"]
    assert entry["value"] == pytest.approx(verdict["win_rate"])
    assert found["position_bias"]["judge"] == {"best_vs_base.test": 0.0}


def test_a_liking_for_long_answers_is_found(run, tmp_path):
    assert command(run, "rate") == 0

    def answer(prompt):
        text = re.search(r"<answer>\n(.*)\n", prompt).group(1)
        return json.dumps({"reason": "", "score": min(5, worth(text) + (len(text) > 34))})

    with serving(answer) as (_, url):
        words = ("--config.judge.backend=openai", "--config.judge.model=m")
        for arm in ("best", "base"):
            url_word = f"--config.judge.url={url}"
            assert command(run, "judge", *words, url_word, f"--checkpoint={arm}") == 0
    assert command(run, "calibrate", f"--ratings={rated(run, tmp_path / 'a.csv')}") == 0
    slope = calibration(run)["length_bias"]
    assert slope["interval"][0] > 0.1


BAD = [
    ("id,rater,score\n{0},ann,9\n", [":2: score '9', expected a whole number from 1 to 5"]),
    ("id,rater,score\n{0},ann,2.5\n", [":2: score '2.5'"]),
    ("id,rater,score\n{0},ann,good\n", [":2: score 'good'"]),
    ("id,rater,score\n{0},ann,1\n{0},ann,2\n", [":3:", "rated '{0}' already, in", "a.csv:2"]),
    ("id,rater,score\n{0},ann,1\nffff,ann,2\n", [":3: unknown id 'ffff'", "of this run"]),
    ("id,rater,score\nx,ann,1\ny,ann,2\n", [":2: unknown id 'x'", "So have 1 more"]),
    ("id,rater,score\n{0},,1\n", [":2: the column 'rater' is empty"]),
    ("id,rater,socre\n{0},ann,1\n", [":1: no column 'score'", "Did you mean 'socre'?"]),
    ("id;rater;score\n{0};ann;1\n", [":1: no column 'id'", "separated by commas"]),
    ("", [":1: no column 'id'"]),
    ("id,rater,score\n{0},ann,\n", ["no ratings in it"]),
    ("id,rater,score\n{0},ann,3\n", ["share 1 rows", "Rate more"]),
    ("id,rater,score\n{0},ann,\xff\n", ["not a readable CSV file in UTF-8"]),
]


@pytest.mark.parametrize("text, fragments", BAD)
def test_bad_ratings(run, tmp_path, capsys, text, fragments):
    assert command(run, "rate", "--config.judge.sample=3") == 0
    judged(run, lambda w: w)
    id = page_items(run)[0]["id"]
    file = tmp_path / "a.csv"
    file.write_text(text.replace("{0}", id), encoding="latin-1")
    before = file.read_bytes()
    capsys.readouterr()
    assert command(run, "calibrate", f"--ratings={file}") == 2
    error = capsys.readouterr().err
    assert all(fragment.replace("{0}", id) in error for fragment in fragments), error
    assert str(file) in error and file.read_bytes() == before


def test_files_as_a_spreadsheet_writes_them(run, tmp_path):
    assert command(run, "rate") == 0
    judged(run, lambda w: w)
    file = rated(run, tmp_path / "a.csv")
    text = file.read_text().replace("id,rater,score", "note,id,rater,score")
    lines = [text.splitlines()[0], *(f'"a, ""b""",{line}' for line in text.splitlines()[1:])]
    lines[1] = lines[1].rpartition(",")[0] + ","  # not rated yet
    lines[2] = lines[2] + ".0"
    file.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    assert command(run, "calibrate", f"--ratings={file}") == 0
    assert calibration(run)["ratings"]["rows"] == 79
    assert calibration(run)["ratings"]["unrated_lines"] == 1


def test_what_has_not_been_judged_is_named(run, tmp_path, capsys):
    assert command(run, "rate") == 0
    file = rated(run, tmp_path / "a.csv")
    judged(run, lambda w: w, arms=["best"])
    assert command(run, "calibrate", f"--ratings={file}") == 2
    error = capsys.readouterr().err
    assert "is of base on test, and has no verdict" in error and "--checkpoint=base" in error


def test_verdicts_of_two_judges_are_not_mixed(run, tmp_path, capsys):
    assert command(run, "rate") == 0
    judged(run, lambda w: w, arms=["best"])
    judged(run, lambda w: w, "--config.judge.max_new_tokens=99", arms=["base"])
    assert command(run, "calibrate", f"--ratings={rated(run, tmp_path / 'a.csv')}") == 2
    assert "were judged by different judges" in capsys.readouterr().err


def test_ratings_are_needed(run, capsys):
    assert command(run, "calibrate") == 2
    assert "--ratings=FILE.csv is missing" in capsys.readouterr().err
    assert command(run, "calibrate", "--ratings=/none.csv") == 2
    assert "/none.csv" in capsys.readouterr().err
