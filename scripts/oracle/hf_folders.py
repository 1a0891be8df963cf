"""Writes models as transformers saves them: what ``sft`` has to read as they are.

    scripts/oracle/setup.sh && .venv-oracle/bin/python scripts/oracle/hf_folders.py TOKENIZER OUT

TOKENIZER is a folder with a ``tokenizer.json`` of at most 512 tokens, such as the tests' (``write``
of ``sft.export.tokenizer``). OUT gets a folder for each of

    gemma2, gemma3   a text model in one file
    images           Gemma3ForConditionalGeneration: shards, an index and an image tower

each with the tokenizer as ``AutoTokenizer`` saves it, and ``logits.npz``: ids and float32 logits.
``--golden`` copies the small files that are not weights to tests/golden/transformers.
"""

import argparse
import pathlib
import shutil

import numpy as np
import torch
import transformers
from parity_goldens import LOCAL, WHOLE

GOLDEN = pathlib.Path(__file__).parents[2] / "tests" / "golden" / "transformers"
KEPT = (  # what the tests put beside weights of their own
    "gemma2/config.json",
    "gemma3/config.json",
    "gemma3/tokenizer.json",
    "images/config.json",
    "images/model.safetensors.index.json",
)
SIZES = {
    "vocab_size": 512,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "query_pre_attn_scalar": 16,
    "sliding_window": 8,
}
ROPE = {
    LOCAL: {"rope_type": "default", "rope_theta": 10_000.0},
    WHOLE: {"rope_type": "linear", "factor": 8.0, "rope_theta": 1_000_000.0},
}
TEXT = SIZES | {"layer_types": [LOCAL, LOCAL, WHOLE], "rope_parameters": ROPE}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}


def models() -> dict[str, transformers.PreTrainedModel]:
    torch.manual_seed(0)
    gemma2 = transformers.Gemma2Config(**SIZES)
    gemma3 = transformers.Gemma3TextConfig(**TEXT)
    images = transformers.Gemma3Config(
        text_config=TEXT, vision_config=VISION, mm_tokens_per_image=4, image_token_index=5
    )
    return {
        "gemma2": transformers.Gemma2ForCausalLM(gemma2),
        "gemma3": transformers.Gemma3ForCausalLM(gemma3),
        "images": transformers.Gemma3ForConditionalGeneration(images),
    }


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tokenizer", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--golden", action="store_true")
    given = parser.parse_args()
    tokenizer = transformers.AutoTokenizer.from_pretrained(given.tokenizer)
    ids = torch.tensor([[2, *range(10, 40)]])
    for name, model in models().items():
        for parameter in model.parameters():
            parameter.normal_(std=0.3 if parameter.ndim < 2 else parameter.shape[1] ** -0.5)
        folder = given.out / name
        model.save_pretrained(folder, max_shard_size="90KB" if name == "images" else "1GB")
        tokenizer.save_pretrained(folder)
        logits = model.eval()(ids).logits.float().numpy()
        np.savez(folder / "logits.npz", ids=ids.numpy(), logits=logits)
        print(folder, *sorted(path.name for path in folder.iterdir()))
    for file in KEPT if given.golden else ():
        (GOLDEN / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(given.out / file, GOLDEN / file)


if __name__ == "__main__":
    main()
