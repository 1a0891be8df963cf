"""Every array has a place, and what cannot be placed is said by name."""

import jax
import jax.numpy as jnp
import pytest
from tiny import make_config

from sft.errors import UserError
from sft.model import decoder, sharding, specs
from sft.model.sharding import P
from sft.train import optim
from sft.train.steps import make_steps


def mesh_of(data, fsdp, tensor, **changes):
    count = data * fsdp * tensor
    config = make_config(
        mesh__data=data, mesh__fsdp=fsdp, mesh__tensor=tensor, train__batch_size=count, **changes
    )
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
        a, b = P(None, "fsdp", None), P(None, None, ("tensor", "fsdp"))
        assert place.spec == (P(None, "fsdp", "tensor") if rank == 0 else a if "'A'" in name else b)


def test_every_matrix_is_divided_along_both_weight_axes():
    mesh = mesh_of(2, 2, 2)
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
    assert placed["layers"]["q_SxDxNxH"].spec == P(None, "fsdp", "tensor", None)
    assert placed["layers"]["o_SxNxHxD"].spec == P(None, "tensor", None, "fsdp")


@pytest.mark.parametrize("name", specs.SPECS)
def test_every_model_is_divided_by_fsdp_of_eight(name):
    sharding.of_tree(decoder.abstract_params(specs.get(name), jnp.bfloat16), mesh_of(1, 8, 1))


def test_an_indivisible_leaf_is_an_error_by_name():
    params = decoder.abstract_params(specs.tiny("gemma3"), jnp.float32)  # 2 key/value heads
    with pytest.raises(UserError, match=r"layers/k_SxDxKxH.*4 along 'tensor'.*mesh\.tensor"):
        sharding.of_tree(params, mesh_of(1, 1, 4))
    config = make_config()
    with pytest.raises(UserError, match="layers/k_SxDxKxH"):
        make_steps(config, specs.tiny(), optim.make(config.optim, 1), mesh_of(1, 1, 4))


def test_a_leaf_without_a_rule_is_an_error_by_name():
    tree = {"layers": {"router_SxDxE": jax.ShapeDtypeStruct((4, 8, 2), jnp.float32)}}
    with pytest.raises(UserError, match=r"no rule matches layers/router_SxDxE \(4, 8, 2\)"):
        sharding.of_tree(tree, mesh_of(8, 1, 1))


@pytest.mark.parametrize(
    ("axes", "shape"),
    [
        ((-1, 1, 1), (8, 1, 1)),
        ((-1, 4, 1), (2, 4, 1)),
        ((2, 2, 2), (2, 2, 2)),
        ((-1, 4, 2), (1, 4, 2)),
    ],
)
def test_mesh_shapes(axes, shape):
    data, fsdp, tensor = axes
    config = make_config(mesh__data=data, mesh__fsdp=fsdp, mesh__tensor=tensor)
    mesh = sharding.make_mesh(config)
    assert mesh.axis_names == ("data", "fsdp", "tensor")
    assert mesh.devices.shape == shape
    assert sharding.groups(mesh) == shape[0] * shape[1]


@pytest.mark.parametrize("axes", [(3, 1, 1), (-1, 3, 1), (2, 2, 1), (-1, 16, 1)])
def test_a_mesh_of_another_device_count_is_an_error(axes):
    data, fsdp, tensor = axes
    config = make_config(
        mesh__data=data, mesh__fsdp=fsdp, mesh__tensor=tensor, train__batch_size=48
    )
    with pytest.raises(UserError, match=r"config\.mesh.*there are 8 devices"):
        sharding.make_mesh(config)


def test_another_platform_is_an_error():
    with pytest.raises(UserError, match=r"config\.mesh\.platform = 'tpu'.*'cpu'"):
        sharding.make_mesh(make_config(mesh__platform="tpu"))
    assert sharding.make_mesh(make_config(mesh__platform="cpu")).size == 8


@pytest.mark.parametrize(("rows", "parts"), [(12, 1), (8, 2), (4, 1)])
def test_an_indivisible_batch_is_an_error(rows, parts):
    with pytest.raises(UserError, match=rf"batch_size = {rows} must be a multiple of .*8 x fsdp 1"):
        sharding.make_mesh(make_config(train__batch_size=rows, train__microbatches=parts))
