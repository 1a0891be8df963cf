"""Tunix's PeftTrainer on its Gemma 3 270M, LoRA through qwix.

Its loss, masks and jitted step are used as they come. Rows are padded to one length, the longest
example of the data set, as Tunix pads to ``max_target_length``. Variants are its remat settings:
``none`` (its default), ``block`` and ``decoder``.
"""

import common
import jax
import numpy as np
import optax
import qwix
from common import ALPHA, LEARNING_RATE, RANK
from tunix.models.gemma3 import model as gemma3
from tunix.models.gemma3 import params_safetensors
from tunix.sft import peft_trainer, utils
from tunix.utils.mesh import create_mesh

# Its q_einsum, kv_einsum and attn_vec_einsum are the projections q, k, v and o.
MODULES = ".*(q_einsum|kv_einsum|attn_vec_einsum|gate_proj|up_proj|down_proj)"


def load(exchange, variant: str):
    """Tunix's model with the exchanged weights and rank-8 adapters on every projection."""
    config = gemma3.ModelConfig.gemma3_270m()
    config.remat_config = gemma3.RematConfig[variant.upper() or "NONE"]
    mesh = create_mesh((1, 1), ("fsdp", "tp"))
    model = params_safetensors.create_model_from_safe_tensors(str(exchange / "hf"), config, mesh)
    provider = qwix.LoraProvider(module_path=MODULES, rank=RANK, alpha=ALPHA)
    with mesh:
        model = qwix.apply_lora_to_model(model, provider, **model.get_model_input())
    return model, mesh


def model_input(x: peft_trainer.TrainingInput) -> dict:
    """As in ``tunix/cli/peft_main.py``."""
    is_token_BxL = x.input_tokens != 0
    return {
        "input_tokens": x.input_tokens,
        "input_mask": x.input_mask,
        "positions": utils.build_positions_from_mask(is_token_BxL),
        "attention_mask": utils.make_causal_attn_mask(is_token_BxL),
    }


def main() -> None:
    args = common.arguments("tunix")
    model, mesh = load(args.exchange, args.variant)
    trainer = peft_trainer.PeftTrainer(
        model,
        optax.adamw(LEARNING_RATE, weight_decay=0.0),
        peft_trainer.TrainingConfig(eval_every_n_steps=1_000_000_000),
    ).with_gen_model_input_fn(model_input)
    examples = common.read_examples(args.exchange)
    length = max(len(e.tokens) for e in examples)

    with mesh:
        train_step, _ = trainer.jit_train_and_eval_step(cache_nnx_graph=True)

        def step(rows: list[common.Example]) -> float:
            batch = common.pad(rows, length)
            inputs = peft_trainer.TrainingInput(
                input_tokens=batch["tokens_BxL"], input_mask=batch["is_target_BxL"]
            )
            loss, _, grad_norm = train_step(inputs)
            jax.block_until_ready(grad_norm)
            return float(np.asarray(loss, np.float32))

        common.run(args, common.cut(examples, args.examples_per_step), step)


if __name__ == "__main__":
    main()
