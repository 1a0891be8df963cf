"""Writes tests/golden/parity_{gemma2,gemma3}.*: tiny random models of Hugging Face transformers.

    scripts/oracle/setup.sh && .venv-oracle/bin/python scripts/oracle/parity_goldens.py

Float32, eager attention, sequences three windows long, every norm weight random, queries and keys
large enough for the soft caps to act. The sizes are those of ``sft.model.specs.tiny``. Takes about
ten seconds and gives the same files every time.
"""

import json
import pathlib
import platform

import numpy as np
import safetensors
import safetensors.torch
import torch
import transformers

GOLDEN = pathlib.Path(__file__).parents[2] / "tests" / "golden"
LENGTH = 24
SIZES = {
    "vocab_size": 256,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "query_pre_attn_scalar": 16,
    "sliding_window": 8,
    "attn_implementation": "eager",
}
LOCAL, WHOLE = "sliding_attention", "full_attention"


def gemma2() -> transformers.PreTrainedModel:
    config = transformers.Gemma2Config(
        **SIZES,
        layer_types=[LOCAL, WHOLE, LOCAL, WHOLE],
        attn_logit_softcapping=50.0,
        final_logit_softcapping=30.0,
    )
    return transformers.Gemma2ForCausalLM(config)


def gemma3() -> transformers.PreTrainedModel:
    config = transformers.Gemma3TextConfig(
        **SIZES,
        layer_types=[LOCAL, LOCAL, WHOLE, LOCAL],
        rope_parameters={
            LOCAL: {"rope_type": "default", "rope_theta": 10_000.0},
            WHOLE: {"rope_type": "linear", "factor": 8.0, "rope_theta": 1_000_000.0},
        },
    )
    return transformers.Gemma3ForCausalLM(config)


@torch.no_grad()
def randomise(model: transformers.PreTrainedModel) -> None:
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.normal_(std=0.3)
        elif "q_proj" in name or "k_proj" in name:
            parameter.normal_(std=2.0 * parameter.shape[1] ** -0.5)
        else:
            parameter.normal_(std=parameter.shape[1] ** -0.5)


def write(name: str, model: transformers.PreTrainedModel) -> None:
    model = model.to(torch.float32).eval()
    randomise(model)
    ids = torch.randint(0, SIZES["vocab_size"], (2, LENGTH))
    with torch.no_grad():
        logits = model(ids).logits
    weights = {
        key: value.contiguous()
        for key, value in model.state_dict().items()
        if key != "lm_head.weight"  # tied
    }
    file = GOLDEN / f"parity_{name}.safetensors"
    safetensors.torch.save_file(weights, file)
    file.chmod(0o644)  # it is made readable by its owner alone
    np.savez(GOLDEN / f"parity_{name}.npz", tokens_BxL=ids.numpy(), logits_BxLxV=logits.numpy())
    about = {
        "made_by": "scripts/oracle/parity_goldens.py",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "safetensors": safetensors.__version__,
        "largest_logit": round(float(logits.abs().max()), 4),
        "config": model.config.to_dict(),
    }
    text = json.dumps(about, indent=1, sort_keys=True, default=str)
    (GOLDEN / f"parity_{name}.json").write_text(text + "\n")
    print(name, tuple(logits.shape), "largest logit", about["largest_logit"])


def main() -> None:
    GOLDEN.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for name, make in (("gemma2", gemma2), ("gemma3", gemma3)):
        torch.manual_seed(0)
        write(name, make())


if __name__ == "__main__":
    main()
