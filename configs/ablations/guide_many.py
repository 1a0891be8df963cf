"""The guide's start for 1,000 examples or more, against its neighbours.

Claim: the default multiplier and adapter size 8 (Google Cloud, Supervised fine-tuning for Gemini: a
best-practices guide, 2025). A multiplier of 1 is a rate of 1.8e-4 for the 270M (sft/tune/table.py).

    sft sweep --config=configs/ablations/guide_many.py --workdir=runs/ablations/guide_many

Found: the guide's start is a good one: 86 % right at a loss of 0.044; five times its rate is no
better (86 %, 0.042), ten times, which is its start for fewer rows, perhaps worse (82 %, 0.059), and
size 4 as good (86 %, 0.047). One seed.
"""

from sft.config import load
from sft.tune.points import paired


def get_config():
    config = load("configs/ablations/base.py")
    config.data.train = "data/ablations/train_1000.jsonl"
    return config


def points():
    rates = [1.8e-4, 9e-4, 1.8e-3, 1.8e-4]
    return paired({"optim.learning_rate": rates, "lora.rank": [8, 8, 8, 4]})
