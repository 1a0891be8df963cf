"""Training on the examples that the base model finds hardest, against random ones.

Claim: find where the base model fails, and put that into training (Google Cloud, Supervised
fine-tuning for Gemini: a best-practices guide, 2025). 100 of 1,000 rows, twice. First:

    sft data mine --config=configs/ablations/mining.py --workdir=runs/ablations/mined \\
      --config.data.train=data/ablations/train_1000.jsonl
    sft sweep --config=configs/ablations/mining.py --workdir=runs/ablations/mining

Found: not here. Three seeds: 74.2 % right with random rows and with the hardest, at losses of 0.105
and 0.105; the base model fails on every row of this task, so that what it finds hardest is no other
kind of row.
"""

from sft.config import load
from sft.tune.points import paired, seeds


def get_config():
    config = load("configs/ablations/base.py")
    config.train.epochs = 2
    config.mine.share, config.mine.evaluate = 0.1, 0.0
    return config


def points():
    mined = "runs/ablations/mined/mine/base.train.jsonl"
    files = ["data/ablations/train_100_random.jsonl", mined]
    return seeds(3, paired({"data.train": files}))
