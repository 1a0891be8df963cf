"""The pipeline on Beam's own runner. Needs Beam: ``scripts/test.sh`` runs it in .venv-beam."""

import dataclasses

import numpy as np
import pytest
from substring_rules import lists_of, random_case
from test_dedup_plan import corpus, same_plans

from sft.data.batches.examples import Examples
from sft.data.chat.encoding import ANSWER, Example
from sft.data.dedup import options, substring, templates
from sft.data.dedup.beam import pipeline
from sft.data.dedup.beam import policy as beyond
from sft.data.dedup.beam.policy import Layout
from sft.data.dedup.build import build
from sft.data.dedup.spans import ACTIONS
from sft.data.dedup.substring import Options
from sft.errors import UserError

pytestmark = pytest.mark.beam


@pytest.mark.parametrize("scope", ["group", "record"])
def test_random_rows_as_on_one_machine(scope, monkeypatch):
    rng = np.random.default_rng(ord(scope[0]))
    drops = spans = listed = 0
    for number in range(10):
        keep = "none" if number % 4 == 3 else "first"
        monkeypatch.setattr(templates, "LENGTH", [8, 2][number % 2])
        rows, groups, origins, options = random_case(rng, scope=scope, keep=keep)
        rows, groups, origins = 3 * rows, np.tile(groups, 3), np.tile(origins, 3)
        given = Examples.from_list(rows), groups, origins
        how = ACTIONS[number // 3 % 4], float(rng.choice([0.5, 0.8])), int(rng.integers(0, 4))
        expected = substring.policy(*given, options, *how)
        options = dataclasses.replace(options, engine="beam")
        layout = Layout(int(rng.integers(1, 40)), int(rng.integers(1, 6)))
        found = beyond.policy(*given, options, *how, layout)
        assert lists_of(*found) == lists_of(*expected), (rows, groups, options, how, layout)
        drops += expected[0].any()
        spans += len(expected[1].rows) > 0
        listed += len(expected[1].templates) > 0
    assert min(drops, spans, listed) > 1


@pytest.mark.parametrize(
    "mode", ["multi_threading", pytest.param("multi_processing", marks=pytest.mark.slow)]
)
def test_other_ways_of_running(mode, tmp_path):
    rng = np.random.default_rng(0)
    cases = [random_case(rng, length=3, scope="group") for _ in range(60)]
    rows = [
        Example(r.tokens + 10 * (i % 20), r.kinds) for i, case in enumerate(cases) for r in case[0]
    ]
    form = Example(np.arange(900, 906, dtype=np.int32), np.full(6, ANSWER, np.uint8))
    rows = [form if i % 9 == 0 else row for i, row in enumerate(rows)]
    groups = np.concatenate([case[1] + 4 * i for i, case in enumerate(cases)])
    given = Examples.from_list(rows), groups, groups % 2
    how = Options(length=3, template_share=0.08, template_rows=9), "mask", 0.8, 2
    expected = substring.policy(*given, *how)
    assert expected[0].any() and len(expected[1].rows) and expected[1].templates
    flags = f"--direct_running_mode={mode} --direct_num_workers=2 --temp_location={tmp_path}"
    how = (dataclasses.replace(how[0], engine="beam", beam=flags), *how[1:])
    found = beyond.policy(*given, *how, Layout(200, 3))
    assert lists_of(*found) == lists_of(*expected)
    assert not [*tmp_path.iterdir()]


def test_a_plan_does_not_depend_on_the_engine():
    train, held = corpus()
    plans = [build(*train, held, options.Options(engine=engine)) for engine in ("hash", "beam")]
    assert same_plans(*plans)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--runner=MoonRunner", "MoonRunner"),
        ("--temp_locaton=/tmp", r"Beam knows no option --temp_locaton\. Correct its name\.$"),
        ("--direct_num_workers=two", "invalid int value: 'two'"),
        ("--direct_running_mode=psychic", "invalid choice: 'psychic'"),
        ("runner=DirectRunner", r"'runner=DirectRunner' is no --option or --option=value\.$"),
        ("--project='p", r"No closing quotation\. Close the quotation\.$"),
        ("--runner=DataflowRunner", r"DataflowRunner needs a folder .*--temp_location=gs://"),
        ("--temp_location=/dev/null/x", r"--temp_location=/dev/null/x: Not a directory\.$"),
        ("--runner=FlinkRunner", r"FlinkRunner needs a folder .*--temp_location=gs://"),
    ],
)
def test_options_that_cannot_be_used(given, message):
    one = Examples.from_list(random_case(np.random.default_rng(0))[0])
    places = np.zeros(len(one), np.int64)
    with pytest.raises(UserError, match=message) as error:
        substring.policy(one, places, places, Options(engine="beam", beam=given))
    assert str(error.value).startswith("config.data.dedup.beam") and "\n" not in str(error.value)


def test_dataflow_without_a_project(tmp_path):
    found = pipeline.options(f"--runner=DataflowRunner --temp_location={tmp_path}")
    with pytest.raises(UserError, match=r"^config\.data\.dedup\.beam: .*\. Correct the options\.$"):
        pipeline.run(object(), found)
