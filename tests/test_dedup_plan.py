"""Building a plan step by step, storing it, and applying it and nothing else."""

import dataclasses
import json

import numpy as np
import pytest
from test_dedup_leakage import letters, made, noise

from sft.data.batches.examples import Examples
from sft.data.chat.encoding import ANSWER, CONTEXT, END, PROMPT, Example
from sft.data.dedup import plan as plans
from sft.data.dedup.build import build, fingerprint, refuse
from sft.data.dedup.options import Options
from sft.data.dedup.plan import Plan, Reason
from sft.errors import UserError


def pair(number, asked=200, said=200):
    """A row unlike any other."""
    return noise(2 * number, asked), noise(2 * number + 1, said)


def corpus():
    """One row for every reason, and what it is to be."""
    shared = letters(80, 907)
    rows = [
        pair(1),
        pair(2),
        (f" {pair(1)[0]}", pair(1)[1]),  # 2: row 0 again
        (pair(2)[0][:-1] + "X", pair(2)[1]),  # 3: nearly row 1
        (letters(30, 905), noise(70, 80)),  # 4: its prompt is in validation
        (noise(71, 200), f"{noise(72, 100)}.{shared}"),
        (noise(73, 200), f"{noise(74, 99)}.{shared}.{noise(75, 40)}"),  # 6: masked in the middle
        (noise(76, 200), f"{shared}."),  # 7: little else
        (noise(77, 200), "yes"),  # 8: short, but as written
    ]
    return made(*rows), {"validation": made((letters(30, 905), noise(80, 30)))}


def test_every_step_drops_what_is_its_own():
    train, held = corpus()
    plan = build(*train, held)
    found = {row: (reason.code, reason.other) for row, reason in plan.reasons.items()}
    assert found == {
        2: ("exact", "train:0"),
        3: ("near", "train:1"),
        4: ("leak_prompt", "validation:0"),
        7: ("substring", "train:5"),
    }
    assert plan.kept.tolist() == [0, 1, 5, 6, 8]
    assert plan.rows.tolist() == [6] and plan.owners.tolist() == [5]
    assert plan.clusters.tolist() == [0, 1, 0, 1, 4, 5, 6, 7, 8]
    summary = plan.summary
    assert (summary["rows"], summary["kept"]) == (9, 5) and summary["origins"]["a"]["kept"] == 5
    assert summary["dropped"] == {"exact": 1, "near": 1, "leak_prompt": 1, "substring": 1}
    after, kept = plans.apply(plan, train[1], plan.fingerprint)
    assert summary["trained_left"] == after.trained.sum() < summary["trained_tokens"]
    assert kept.tolist() == plan.kept.tolist() and (after.trained > 0).all()
    assert plan.stops[0] - plan.starts[0] >= 80


def test_a_second_run_changes_nothing():
    train, held = corpus()
    plan = build(*train, held)
    after, kept = plans.apply(plan, train[1], plan.fingerprint)
    again = build([train[0][row] for row in kept], after, held)
    assert again.kept.tolist() == list(range(len(kept))) and not len(again.rows)


def test_each_step_can_be_switched_off():
    train, held = corpus()
    plan = build(*train, held, Options(exact=False, near=0, substring=0, leakage="report"))
    assert plan.kept.tolist() == list(range(9)) and not plan.reasons and not len(plan.rows)
    assert {row: why.code for row, why in plan.leaks.items()} == {4: "leak_prompt"}
    assert plan.clusters.tolist() == list(range(9))
    after, _ = plans.apply(plan, train[1], plan.fingerprint)
    assert np.array_equal(after.kinds, train[1].kinds)
    kept = build(*train, held, Options(action="report")).kept.tolist()
    assert kept == [0, 1, 5, 6, 7, 8]
    assert build(*train, held, Options(action="drop")).kept.tolist() == [0, 1, 5, 8]


def test_answers_to_one_prompt_are_kept_told_and_capped():
    asked = noise(1, 300)
    train = made(*((asked, noise(i, 60)) for i in (2, 3, 4)), pair(9))
    plan = build(*train, {})
    assert plan.kept.tolist() == [0, 1, 2, 3]
    assert plan.summary["same_prompt"] == {"prompts": 1, "rows": 3}
    capped = build(*train, {}, Options(responses_per_prompt=2))
    assert {row: why.code for row, why in capped.reasons.items()} == {2: "cap"}


def test_groups_keep_what_they_repeat():
    shared = letters(80, 907)
    train = made(
        (noise(1, 99), f"{noise(2, 99)}.{shared}"), (noise(3, 99), f"{noise(4, 99)}.{shared}")
    )
    grouped = [dataclasses.replace(c, group="one") for c in train[0]]
    assert not len(build(grouped, train[1], {}).rows) and len(build(*train, {}).rows) == 1


def test_a_row_without_a_trained_token_goes():
    train = made(pair(1), pair(2))
    kinds = np.where(np.arange(len(train[1].kinds)) < train[1].starts[1], CONTEXT, train[1].kinds)
    bare = Examples(train[1].tokens, kinds.astype(np.uint8), train[1].starts)
    plan = build(train[0], bare, {})
    assert plan.reasons == {0: Reason("empty", "", "")} and plan.kept.tolist() == [1]


def test_of_rows_alike_by_embedding_the_first_stays():
    train = made(*(pair(i) for i in range(5)))
    rows = [
        dataclasses.replace(row, cluster=name)
        for row, name in zip(train[0], ["", "a", "b", "a", "a"], strict=True)
    ]
    plan = build(rows, train[1], {})
    assert plan.reasons == {row: Reason("embedding", "", "train:1") for row in (3, 4)}
    assert plan.clusters.tolist() == [0, 1, 2, 1, 1]
    with pytest.raises(UserError, match="other training rows"):
        plans.check(plan, build(*train, {}).fingerprint)


def test_nothing_left_is_an_error_that_says_why():
    asked = letters(30)
    plan = build(*made((asked, "x"), (asked, "x")), {"validation": made((asked, "y"))})
    assert plan.kept.tolist() == [] and sorted(plan.reasons) == [0, 1]
    with pytest.raises(UserError, match=r"none of 2 training rows is left \(exact 1, leak_prompt"):
        refuse(plan)
    refuse(build(*made((asked, "x")), {}))
    refuse(build([], Examples.from_list([]), {}))


def same_plans(one: Plan, other: Plan) -> bool:
    names = ("kept", "rows", "starts", "stops", "owners", "clusters")
    equal = [np.array_equal(getattr(one, name), getattr(other, name)) for name in names]
    rest = ("fingerprint", "reasons", "leaks", "summary")
    return all(equal) and all(getattr(one, name) == getattr(other, name) for name in rest)


def test_engine_and_memory_change_neither_plan_nor_fingerprint():
    train, held = corpus()
    assert same_plans(
        *(build(*train, held, o) for o in (Options(), Options(engine="hash", memory=2**26)))
    )


@pytest.mark.parametrize(
    ("options", "word"),
    [({"near": 2}, "near = 2"), ({"action": "hide"}, "mask"), ({"leakage": "x"}, "report"),
     ({"substring": -1}, "0 or more"), ({"engine": "x"}, "suffix_array")],
)  # fmt: skip
def test_bad_options_are_named(options, word):
    with pytest.raises(UserError, match=word) as error:
        Options(**options)
    assert str(error.value).startswith("config.data.") and "\n" not in str(error.value)


def small(action="mask", **changes) -> tuple[Plan, Examples]:
    """Two rows of six tokens; tokens 2 to 4 of the first, an answer and its end, are repeated."""
    kinds = np.array([PROMPT, PROMPT, ANSWER, END, PROMPT, ANSWER], np.uint8)
    examples = Examples.from_list(
        [Example(np.arange(6, dtype=np.int32) + n, kinds) for n in (0, 9)]
    )
    numbers = {"kept": [0], "rows": [0], "starts": [1], "stops": [4], "owners": [1],
               "clusters": [0, 1]}  # fmt: skip
    arrays = {name: np.array(value, np.int64) for name, value in numbers.items()}
    zeros = np.zeros(2, np.int64)
    stored = plans.fingerprint(
        examples, zeros, zeros, zeros, {"test": examples}, {"near": 0}, "abc"
    )
    reasons = {1: Reason("near", "", "train:0")}
    plan = Plan(**arrays, reasons=reasons, leaks={}, action=action, fingerprint=stored, summary={})
    return dataclasses.replace(plan, **changes), examples


def test_apply_masks_or_cuts_and_leaves_its_input():
    plan, examples = small()
    for array in (examples.tokens, examples.kinds):
        array.setflags(write=False)
    masked, kept = plans.apply(plan, examples, plan.fingerprint)
    assert masked.tokens.tolist() == [0, 1, 2, 3, 4, 5] and kept.tolist() == [0]
    assert masked.kinds.tolist() == [PROMPT, PROMPT, CONTEXT, CONTEXT, PROMPT, ANSWER]
    plan, _ = small("cut")
    cut, _ = plans.apply(plan, examples, plan.fingerprint)
    assert cut.tokens.tolist() == [0, 4, 5] and cut.starts.tolist() == [0, 3]
    for action in ("report", "drop"):
        plan, _ = small(action)
        same, _ = plans.apply(plan, examples, plan.fingerprint)
        assert same.kinds.tolist() == examples.kinds[:6].tolist()


def test_memory_mapped_arrays_give_the_same(tmp_path):
    train, held = corpus()
    names = ("tokens", "kinds", "starts")
    for name in names:
        np.save(tmp_path / f"{name}.npy", getattr(train[1], name))
    mapped = Examples(*(np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in names))
    one, other = build(*train, held), build(train[0], mapped, held)
    assert one.fingerprint == other.fingerprint
    left, right = (plans.apply(one, e, other.fingerprint)[0] for e in (train[1], mapped))
    assert all(getattr(left, name).tobytes() == getattr(right, name).tobytes() for name in names)


def test_a_plan_of_something_else_is_refused_by_name():
    train, held = corpus()
    usual, options = fingerprint(*train, held, Options(), "tok"), Options()
    plan = build(*train, held, options, "tok")
    plans.check(plan, usual)
    plans.check(plan, fingerprint(*train, {}, options, "tok"))  # a set that is not read
    grouped = [dataclasses.replace(c, group="g") for c in train[0]]
    other = {"validation": made(("a b c", "d"))}
    for changed, word in (
        ((grouped, train[1], held, options, "tok"), "other training rows. "),
        ((*train, other, options, "tok"), "other validation set. "),
        ((*train, held, Options(near=0.7), "tok"), "config.data.dedup or config.data.leakage. "),
        ((*train, held, options, "new"), "other tokenizer. "),
        ((*made(pair(1)), held, options, "new"), "other training rows, other tokenizer. "),
    ):
        with pytest.raises(UserError, match=r"Run sft data again\.$") as error:
            plans.apply(plan, train[1], fingerprint(*changed))
        assert word in str(error.value)


def test_a_plan_of_an_older_version_is_refused(monkeypatch):
    train, held = corpus()
    plan = build(*train, held)
    monkeypatch.setattr(plans, "VERSION", plans.VERSION + 1)
    with pytest.raises(UserError, match=r"other version of this program\. Run sft data again\.$"):
        plans.check(plan, fingerprint(*train, held, Options()))


def test_saved_and_loaded_it_is_the_same(tmp_path):
    train, held = corpus()
    plan = build(*train, held, Options(leakage="report"))
    assert plan.leaks
    plans.save(plan, tmp_path / "data")
    found = plans.load(tmp_path / "data")
    for field in dataclasses.fields(Plan):
        ours, theirs = getattr(plan, field.name), getattr(found, field.name)
        if isinstance(ours, np.ndarray):
            assert np.array_equal(ours, theirs) and theirs.dtype == np.int64
        else:
            assert ours == theirs
    first = {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()}
    plans.save(found, tmp_path / "data")
    assert first == {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()}
    assert sorted(first) == ["plan.json", "plan.npz"]


def damage(folder, how):
    json_path, npz = folder / "plan.json", folder / "plan.npz"
    stored = json.loads(json_path.read_text())
    if how == "other arrays":
        npz.write_bytes(npz.read_bytes() + b"x")
    elif how == "half a file":
        json_path.write_text(json_path.read_text()[:-20])
    elif how == "no arrays":
        npz.unlink()
    elif how == "another program's":
        json_path.write_text("[1, 2]")
    else:
        del stored["reasons" if how == "no reasons" else "action"]
        json_path.write_text(json.dumps(stored | ({"reasons": []} if how == "no reasons" else {})))


@pytest.mark.parametrize(
    "how",
    ["other arrays", "half a file", "no arrays", "another program's", "no reasons", "no action"],
)
def test_a_damaged_plan_is_refused_in_one_line(tmp_path, how):
    plan, _ = small()
    plans.save(plan, tmp_path)
    damage(tmp_path, how)
    with pytest.raises(UserError, match=r"Run sft data again\.$") as error:
        plans.load(tmp_path)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_a_missing_plan_and_spans_out_of_place(tmp_path):
    with pytest.raises(UserError, match="no plan there"):
        plans.load(tmp_path)
    for changes in ({"rows": np.array([1])}, {"stops": np.array([1])}, {"kept": np.array([1, 0])}):
        plans.save(small(**changes)[0], tmp_path)
        with pytest.raises(UserError, match="not a whole plan"):
            plans.load(tmp_path)


def test_a_plan_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        plans.save(small()[0], tmp_path / "file")
