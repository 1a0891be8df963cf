"""Tunix's PeftTrainer step compiled for a TPU slice: its model, LoRA through qwix, its loss.

Its own choices stay: adapters, moments and softmax in bf16, ``remat NONE`` unless ``--variant``.
"""

from unittest import mock

import jax
import jax.numpy as jnp
import optax
import plan_common as common
import qwix
from flax import nnx
from jax.sharding import NamedSharding
from tunix.models.gemma3 import model as gemma3
from tunix.sft import peft_trainer
from tunix_lora import MODULES, model_input


def build(args):
    """The trainer, made where nothing is allocated, and its model and optimiser as shapes."""
    config = {
        "gemma3_1b": gemma3.ModelConfig.gemma3_1b_it,
        "gemma3_4b": gemma3.ModelConfig.gemma3_4b_it,
    }[args.model]()
    config.remat_config = gemma3.RematConfig[args.variant.upper()]
    config.num_layers = args.layers or config.num_layers
    config.param_dtype = jnp.bfloat16  # as its loader makes them
    made = []

    def inside():
        model = gemma3.Gemma3(config, rngs=nnx.Rngs(0))
        provider = qwix.LoraProvider(module_path=MODULES, rank=args.rank, alpha=args.rank)
        model = qwix.apply_lora_to_model(model, provider, **model.get_model_input())
        trainer = peft_trainer.PeftTrainer(
            model,
            optax.adamw(2e-4, weight_decay=0.0),
            peft_trainer.TrainingConfig(eval_every_n_steps=1_000_000_000),
        ).with_gen_model_input_fn(model_input)
        made.append(trainer)
        return trainer.model, trainer.optimizer

    return nnx.eval_shape(inside), made[-1].create_train_step_fn()


def main() -> None:
    args = common.arguments(("none", "block", "decoder"))
    mesh = common.mesh(args)
    (model, optimizer), train_step = build(args)
    graph, state = nnx.split((model, optimizer))
    specs = nnx.get_partition_spec(state)
    state = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, s)),
        state,
        specs,
    )

    def step(state, inputs):
        model, optimizer = nnx.merge(graph, state)
        loss, _, norm = train_step(model, optimizer, inputs)
        return nnx.state((model, optimizer)), loss, norm

    cells = (args.rows, args.length)
    batch = NamedSharding(mesh, common.BATCH)
    inputs = peft_trainer.TrainingInput(
        input_tokens=jax.ShapeDtypeStruct(cells, jnp.int32, sharding=batch),
        input_mask=jax.ShapeDtypeStruct(cells, jnp.bool, sharding=batch),
    )
    # On a CPU Tunix leaves out where activations are to lie: it must find the slice's devices.
    with mock.patch.object(jax, "devices", lambda: list(mesh.devices.flat)):
        common.compile_and_print(jax.jit(step, donate_argnums=0), mesh, state, inputs)


if __name__ == "__main__":
    main()
