"""Every array has a place, and what cannot be placed is said by name."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from tiny import make_config

from sft.errors import UserError
from sft.mesh import sharding
from sft.mesh.sharding import SHARED, P
from sft.model import decoder, specs
from sft.train import optim
from sft.train.steps import make_steps


def mesh_of(data, fsdp, tensor, sequence=1, **changes):
    count = data * fsdp * tensor * sequence
    config = make_config(
        mesh__data=data, mesh__fsdp=fsdp, mesh__tensor=tensor, mesh__sequence=sequence,
        train__batch_size=count, **changes,
    )  # fmt: skip
    return sharding.make_mesh(config, jax.devices()[:count])


@pytest.mark.parametrize("family", ["gemma2", "gemma3"])
@pytest.mark.parametrize("rank", [0, 2])
def test_every_leaf_of_weights_and_state_has_a_rule(family, rank):
    config = make_config(lora__rank=rank)
    mesh, spec = mesh_of(2, 2, 2), specs.tiny(family)
    params = decoder.abstract_params(spec, jnp.float32)
    steps = make_steps(config, spec, optim.make(config.optim, 10), mesh)
    state, _ = jax.eval_shape(steps.init, jax.random.key(0), params)
    for tree, places in ((params, steps.params_sharding), (state, steps.state_sharding)):
        assert jax.tree.structure(tree) == jax.tree.structure(places)
        for leaf, place in zip(jax.tree.leaves(tree), jax.tree.leaves(places), strict=True):
            place.shard_shape(leaf.shape)  # raises where it does not divide
    moments = [
        (jax.tree_util.keystr(path), place)
        for path, place in jax.tree.leaves_with_path(steps.state_sharding.opt_state)
        if "gate" in jax.tree_util.keystr(path)
    ]
    assert len(moments) == (2 if rank == 0 else 4)  # mu and nu; of A and B under LoRA
    for name, place in moments:
        full, a = P(None, SHARED, "tensor"), P(None, SHARED, None)
        b = P(None, None, ("tensor", *SHARED))
        assert place.spec == (full if rank == 0 else a if "'A'" in name else b)


@pytest.mark.parametrize("axes", [{"fsdp": 2, "sequence": 1}, {"fsdp": 1, "sequence": 2}])
def test_every_matrix_is_divided_along_all_weight_axes(axes):
    mesh = mesh_of(2, tensor=2, **axes)
    params = decoder.abstract_params(specs.tiny("gemma3"), jnp.float32)
    for (path, leaf), place in zip(
        jax.tree.leaves_with_path(params),
        jax.tree.leaves(sharding.of_tree(params, mesh)),
        strict=True,
    ):
        here = jnp.prod(jnp.array(place.shard_shape(leaf.shape)))
        divided = 1 if "norm" in path[-1].key else 4
        assert leaf.size == here * divided, path
    placed = sharding.of_tree(params, mesh)
    assert placed["layers"]["q_SxNxHxD"].spec == P(None, "tensor", SHARED, None)
    assert placed["layers"]["o_SxNxHxD"].spec == P(None, "tensor", SHARED, None)


@pytest.mark.parametrize("name", specs.SPECS)
def test_every_model_is_divided_by_fsdp_of_eight(name):
    sharding.of_tree(decoder.abstract_params(specs.get(name), jnp.bfloat16), mesh_of(1, 8, 1))


def test_an_indivisible_leaf_is_an_error_by_name():
    params = decoder.abstract_params(specs.tiny("gemma3"), jnp.float32)  # 2 key/value heads
    with pytest.raises(UserError, match=r"layers/k_SxKxHxD.*4 along 'tensor'.*mesh\.tensor"):
        sharding.of_tree(params, mesh_of(1, 1, 4))
    config = make_config()
    with pytest.raises(UserError, match="layers/k_SxKxHxD"):
        make_steps(config, specs.tiny(), optim.make(config.optim, 1), mesh_of(1, 1, 4))


def test_a_leaf_without_a_rule_is_an_error_by_name():
    tree = {"layers": {"router_SxDxE": jax.ShapeDtypeStruct((4, 8, 2), jnp.float32)}}
    with pytest.raises(UserError, match=r"no rule matches layers/router_SxDxE \(4, 8, 2\)"):
        sharding.of_tree(tree, mesh_of(8, 1, 1))


def of_axes(data, fsdp, sequence, tensor, **changes):
    return make_config(
        mesh__data=data, mesh__fsdp=fsdp, mesh__sequence=sequence, mesh__tensor=tensor, **changes
    )


@pytest.mark.parametrize(
    ("axes", "shape"),
    [
        ((-1, 1, 1, 1), (8, 1, 1, 1)),
        ((-1, 4, 1, 1), (2, 4, 1, 1)),
        ((2, 2, 1, 2), (2, 2, 1, 2)),
        ((-1, 4, 1, 2), (1, 4, 1, 2)),
        ((-1, 1, 4, 1), (2, 1, 4, 1)),
    ],
)
def test_mesh_shapes(axes, shape):
    mesh = sharding.make_mesh(of_axes(*axes))
    assert mesh.axis_names == ("data", "fsdp", "sequence", "tensor")
    assert mesh.devices.shape == shape
    assert sharding.groups(mesh) == shape[0] * shape[1]


@pytest.mark.parametrize(
    "axes", [(3, 1, 1, 1), (-1, 3, 1, 1), (2, 2, 1, 1), (-1, 16, 1, 1), (1, 1, 4, 1)]
)
def test_a_mesh_of_another_device_count_is_an_error(axes):
    with pytest.raises(UserError, match=r"config\.mesh.*there are 8 devices"):
        sharding.make_mesh(of_axes(*axes, train__batch_size=48))


def test_rows_that_cannot_be_cut_are_an_error():
    with pytest.raises(UserError, match=r"max_length = 100 must be a multiple of mesh sequence 8"):
        sharding.make_mesh(of_axes(1, 1, 8, 1, data__max_length=100))


@dataclasses.dataclass(frozen=True)
class Chip:
    """As JAX shows a TPU of several slices."""

    id: int
    slice_index: int
    coords: tuple[int, int, int]
    platform: str = "tpu"
    device_kind: str = "TPU v5 lite"
    core_on_chip: int = 0

    @property
    def process_index(self):
        return self.slice_index


def chips(slices):
    """Of 2 x 2, in an order that mixes the slices."""
    places = [(x, y, 0) for y in range(2) for x in range(2)]
    return [Chip(i, i % slices, places[i // slices]) for i in range(4 * slices)]


def test_only_data_goes_across_slices():
    mesh = sharding.make_mesh(of_axes(-1, 2, 1, 2, train__batch_size=8), chips(2))
    assert mesh.devices.shape == (2, 2, 1, 2)
    for index in range(2):
        assert {d.slice_index for d in mesh.devices[index].flat} == {index}
    wide = sharding.make_mesh(of_axes(-1, 1, 1, 1, train__batch_size=16), chips(4))
    assert [d.slice_index for d in wide.devices.flat] == [i for i in range(4) for _ in range(4)]


def test_other_platforms_are_cut_into_the_slices_asked_for():
    mesh = sharding.make_mesh(of_axes(-1, 2, 1, 1, mesh__slices=2, train__batch_size=8))
    assert [d.id for d in mesh.devices.flat] == list(range(8))


@pytest.mark.parametrize(
    ("axes", "slices", "devices", "words"),
    [
        ((-1, 4, 1, 2), 0, chips(2), r"data 1 cannot be divided among 2 slices.*= 8 must divide t"),
        ((-1, 1, 1, 1), 4, chips(2), r"mesh\.slices = 4, but the devices are in 2 slice"),
        ((-1, 1, 1, 1), 3, None, r"mesh\.slices = 3 does not divide 8"),
        ((2, 4, 1, 1), 4, None, r"data 2 cannot be divided among 4 slices"),
    ],
)
def test_slices_that_do_not_suit_are_an_error(axes, slices, devices, words):
    with pytest.raises(UserError, match=words):
        sharding.make_mesh(of_axes(*axes, mesh__slices=slices, train__batch_size=8), devices)


def test_another_platform_is_an_error():
    with pytest.raises(UserError, match=r"config\.mesh\.platform = 'tpu'.*'cpu'"):
        sharding.make_mesh(make_config(mesh__platform="tpu"))
    assert sharding.make_mesh(make_config(mesh__platform="cpu")).size == 8


@pytest.mark.parametrize(("rows", "parts"), [(12, 1), (8, 2), (4, 1)])
def test_an_indivisible_batch_is_an_error(rows, parts):
    with pytest.raises(UserError, match=rf"batch_size = {rows} must be a multiple of .*8 x fsdp 1"):
        sharding.make_mesh(make_config(train__batch_size=rows, train__microbatches=parts))
