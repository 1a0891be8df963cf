"""How much do more examples bring, and how few are enough?

Claim: 20 pairs can already move Gemma (Google, Tune Gemma models); start near 100, look, then add
(Google Cloud, Supervised fine-tuning for Gemini: a best-practices guide, 2025). Sets of up to 200
see as many rows, 200; the larger ones are read once.

    sft sweep --config=configs/ablations/examples.py --workdir=runs/ablations/examples

Found: not run yet.
"""

from sft.config import load
from sft.tune.points import paired


def get_config():
    return load("configs/ablations/base.py")


def points():
    sizes = [20, 100, 200, 1000, 3000]
    files = [f"data/ablations/train_{size}.jsonl" for size in sizes]
    return paired({"data.train": files, "train.epochs": [10, 2, 1, 1, 1]})
