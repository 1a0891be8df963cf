"""lm-eval's own Hugging Face backend on local tasks; run by lm_eval_parity.py in .venv-oracle.

    lm_eval_hf.py --model DIR --tasks A.yaml,B.yaml --max-length N --softmax float32 --out FILE.json

DIR holds ``config.json``, ``model.safetensors`` and ``tokenizer.json``. Float32, eager attention.
"""

import argparse
import importlib.metadata
import json
import pathlib

import lm_eval
import torch
import transformers
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--tasks", required=True)
    parser.add_argument("--max-length", type=int, required=True)
    parser.add_argument("--softmax", choices=("float32", "float64"), required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(args.model / "tokenizer.json"),
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
    )
    model = transformers.AutoModelForCausalLM.from_pretrained(
        args.model, dtype=torch.float32, attn_implementation="eager"
    )
    found = lm_eval.simple_evaluate(
        HFLM(
            pretrained=model,
            tokenizer=tokenizer,
            max_length=args.max_length,
            softmax_dtype=args.softmax,
            # See lm_eval_parity.py: it mistakes windows of repetitive texts for one another.
            logits_cache=False,
            batch_size=8,
            device="cpu",
        ),
        tasks=args.tasks.split(","),
        task_manager=TaskManager(include_defaults=False),
        bootstrap_iters=0,
    )
    names = ("lm_eval", "torch", "transformers", "tokenizers")
    versions = {name: importlib.metadata.version(name.replace("_", "-")) for name in names}
    kept = {key: found[key] for key in ("results", "samples")} | {"versions": versions}
    args.out.write_text(json.dumps(kept, default=str))


if __name__ == "__main__":
    main()
