"""Quality against quantity: what do wrong answers cost, and do more rows make up for them?

Claim: a small refined set often beats a large noisy one (Google Cloud, Supervised fine-tuning for
Gemini: a best-practices guide, 2025). A wrong answer is another row's.

    sft sweep --config=configs/ablations/quality.py --workdir=runs/ablations/quality

Found: not run yet.
"""

from sft.config import load
from sft.tune.points import paired


def get_config():
    return load("configs/ablations/base.py")


def points():
    names = ["200", "200_wrong_10", "200_wrong_30"]
    yield from paired({"data.train": [f"data/ablations/train_{n}.jsonl" for n in names]})
    yield {"data.train": "data/ablations/train_1000_wrong_30.jsonl"}
