"""Quality against quantity: what do wrong answers cost, and do more rows make up for them?

Claim: a small refined set often beats a large noisy one (Google Cloud, Supervised fine-tuning for
Gemini: a best-practices guide, 2025). A wrong answer is another row's.

    sft sweep --config=configs/ablations/quality.py --workdir=runs/ablations/quality

Found: as claimed for the loss: 0.081 clean, 0.117 and 0.138 with 10 and 30 % wrong (p = 0.08 and
0.0007, three seeds); fewer right answers (78, 73 and 78 %) are not beyond chance. 1,000 rows with
30 % wrong, five times the steps, are as good as 200 clean ones (81 %, 0.097; p = 0.7 and 0.3), no
better.
"""

from sft.config import load
from sft.tune.points import grid, seeds


def get_config():
    return load("configs/ablations/base.py")


def points():
    names = ["200", "200_wrong_10", "200_wrong_30", "1000_wrong_30"]
    return seeds(3, grid({"data.train": [f"data/ablations/train_{n}.jsonl" for n in names]}))
