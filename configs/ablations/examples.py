"""How much do more examples bring, and how few are enough?

Claim: 20 pairs can already move Gemma (Google, Tune Gemma models); start near 100, look, then add
(Google Cloud, Supervised fine-tuning for Gemini: a best-practices guide, 2025). Sets of up to 200
see as many rows, 200; the larger ones are read once.

    sft sweep --config=configs/ablations/examples.py --workdir=runs/ablations/examples

Found: as claimed: the base model gets none right, and 20 rows read ten times give 64 %; 100 give
72, 200 give 78, 1,000 give 89 and 3,000 give 94 %, at losses of 0.244, 0.079, 0.078, 0.044 and
0.018. What 1,000 and 3,000 bring is more steps too. One seed.
"""

from sft.config import load
from sft.tune.points import paired


def get_config():
    return load("configs/ablations/base.py")


def points():
    sizes = [20, 100, 200, 1000, 3000]
    files = [f"data/ablations/train_{size}.jsonl" for size in sizes]
    return paired({"data.train": files, "train.epochs": [10, 2, 1, 1, 1]})
