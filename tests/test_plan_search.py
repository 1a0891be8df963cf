"""The order in which a plan that does not fit is changed, with a function for a compiler."""

from tiny import make_config

from sft.errors import UserError
from sft.mesh import slices
from sft.plan import search
from sft.plan.search import Outcome


def attempts(config, name, first, answer):
    """What ``search`` tries, as (slice, changes) pairs, and the last outcome."""
    tried = list(search.search(config, slices.get(name), first, answer))
    return [(t.slice_.name, t.changes) for t in tried], tried[-1].outcome


def test_order_of_attempts():
    """Nothing fits: every stage is seen, each with what the stages before it left."""
    config = make_config(
        model__remat="none", train__batch_size=8, data__max_length=16, mesh__data=4
    )
    seen, last = attempts(
        config, "v5e-4", Outcome(False, 100), lambda config, slice_: Outcome(False, 100)
    )
    micro, remat = {"train.microbatches": 2}, {"model.remat": "layer"}
    assert seen[:5] == [
        ("v5e-4", micro),
        ("v5e-4", micro | {"model.remat": "projections"}),
        ("v5e-4", micro | remat),
        ("v5e-4", micro | remat | {"mesh.data": -1, "mesh.fsdp": 2}),
        ("v5e-4", micro | remat | {"mesh.data": -1, "mesh.fsdp": 4}),
    ]
    mesh = [(c["mesh.fsdp"], c["mesh.tensor"]) for s, c in seen[5:7]]
    assert mesh == [(2, 2), (1, 4)]
    assert seen[7] == ("v5e-4", seen[6][1] | {"model.remat": "host"})
    names = [s for s, _ in seen[8:]]
    assert names == [s.name for s in slices.larger(slices.get("v5e-4"))]
    first_larger = seen[8][1]
    assert first_larger["model.remat"] == "layer"
    assert first_larger["mesh.fsdp"] == 8 and first_larger["train.microbatches"] == 1
    assert seen[9][1]["mesh.fsdp"] == 8 and seen[9][1]["mesh.tensor"] == 2
    assert not last.fits


def test_a_change_that_makes_it_worse_is_dropped():
    config = make_config(model__remat="layer", train__batch_size=4)

    def answer(config, slice_):
        if config.train.microbatches > 1:
            return Outcome(False, 150)
        return Outcome(config.mesh.fsdp == 2, 90)

    seen, last = attempts(config, "v5e-4", Outcome(False, 100), answer)
    assert seen == [("v5e-4", {"mesh.data": -1, "mesh.fsdp": 2})] and last.fits
    config.train.batch_size = 8
    seen, last = attempts(config, "v5e-4", Outcome(False, 100), answer)
    assert seen == [
        ("v5e-4", {"train.microbatches": 2}),
        ("v5e-4", {"mesh.data": -1, "mesh.fsdp": 2}),
    ]


def test_a_lower_bound_is_not_worse_than_a_real_number():
    """Only the second attempt was compiled; its larger number is progress."""
    config = make_config(model__remat="layer", train__batch_size=4, data__max_length=16)

    def answer(config, slice_):
        return Outcome(config.mesh.tensor == 2 and config.mesh.fsdp == 2, 120)

    first = Outcome(False, 100, at_least=True)
    seen, last = attempts(config, "v5e-4", first, answer)
    assert last.fits and seen[-1][1] == {"mesh.data": -1, "mesh.fsdp": 2, "mesh.tensor": 2}


def test_what_cannot_be_tried_says_why():
    def answer(config, slice_):
        if config.mesh.tensor > 1:
            raise UserError("cannot be cut")
        return Outcome(False, 100)

    config = make_config(model__remat="layer", train__batch_size=1)
    tried = list(search.search(config, slices.get("v5e-256"), Outcome(False, 100), answer))
    reasons = {t.outcome.why for t in tried if t.changes.get("mesh.tensor", 1) > 1}
    assert reasons == {"not possible: cannot be cut"}


def test_long_rows_are_cut_before_heads_are():
    """One row: no batch to divide, so devices take parts of it, as long as a kernel can."""
    config = make_config(
        model__remat="layer", train__batch_size=1, data__max_length=512, mesh__tensor=2
    )
    seen, _ = attempts(
        config, "v5e-16", Outcome(False, 100), lambda config, slice_: Outcome(False, 100)
    )
    cut = [c["mesh.sequence"] for s, c in seen if s == "v5e-16" and "mesh.sequence" in c]
    assert cut[:2] == [2, 4] and 8 not in cut
    larger = [c for s, c in seen if s == "v5e-32"]
    assert (larger[0]["mesh.sequence"], larger[0]["mesh.tensor"]) == (1, 32)
    assert search.spread(config, slices.get("v5e-4"))["mesh.sequence"] == 4


def test_slices_share_no_row_and_no_weight():
    config = make_config(model__remat="layer", train__batch_size=8, data__max_length=256)
    two = slices.get("2xv5e-8")
    assert search.spread(config, two) == {
        "train.microbatches": 1, "mesh.data": -1, "mesh.fsdp": 4, "mesh.sequence": 2,
        "mesh.tensor": 1,
    }  # fmt: skip
    seen, _ = attempts(
        config, two.name, Outcome(False, 100), lambda config, slice_: Outcome(False, 100)
    )
    here = [c for s, c in seen if s == two.name]
    within = [
        c.get("mesh.fsdp", 1) * c.get("mesh.sequence", 1) * c.get("mesh.tensor", 1) for c in here
    ]
    assert max(within) == 8
    assert {s for s, _ in seen} >= {"2xv5e-16", "2xv5e-256"}
