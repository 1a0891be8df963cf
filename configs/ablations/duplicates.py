"""What do repeated rows cost, and what does a leak of the test set give?

Claim: duplicates waste training and are memorised; between train and test they inflate results
(Lee et al., Deduplicating Training Data, 2022). In train_200_twice 100 rows stand twice; in
train_200_leaked 80 of 200 rows are the test set's.

    sft sweep --config=configs/ablations/duplicates.py --workdir=runs/ablations/duplicates

Found: the leak flatters the loss (0.052 against 0.078) and perhaps the answers (84 % against 78).
Rows twice cost little against 200 different ones, and are better than the same rows once: what is
missing in runs this short is steps. So is what 12 steps without the leak got, 21 %: one seed.
"""

from sft.config import load
from sft.tune.points import paired


def get_config():
    return load("configs/ablations/base.py")


def points():
    names = ["200", "200_twice", "200_twice", "200_leaked", "200_leaked"]
    turned = {
        "data.train": [f"data/ablations/train_{name}.jsonl" for name in names],
        "data.dedup.exact": [True, False, True, True, True],
        "data.leakage.action": ["report", "report", "report", "report", "drop"],
    }
    return paired(turned)
