"""Quality against quantity: what do wrong answers cost, and do more rows make up for them?

Claim: a small refined set often beats a large noisy one (Google Cloud, Supervised fine-tuning for
Gemini: a best-practices guide, 2025). A wrong answer is another row's.

    sft sweep --config=configs/ablations/quality.py --workdir=runs/ablations/quality

Found: as claimed for the loss (0.078 clean, 0.121 and 0.133 with 10 and 30 % wrong), while wrong
answers cost few right ones at such a size (71 and 75 of 78 %, within chance). 1,000 rows with 30 %
wrong, five times the steps, are as good as 200 clean ones and no better. One seed.
"""

from sft.config import load
from sft.tune.points import paired


def get_config():
    return load("configs/ablations/base.py")


def points():
    names = ["200", "200_wrong_10", "200_wrong_30"]
    yield from paired({"data.train": [f"data/ablations/train_{n}.jsonl" for n in names]})
    yield {"data.train": "data/ablations/train_1000_wrong_30.jsonl"}
