"""What do repeated rows cost, and what does a leak of the test set give?

Claim: duplicates waste training and are memorised; between train and test they inflate results
(Lee et al., Deduplicating Training Data, 2022). In train_200_twice 100 rows stand twice; in
train_200_leaked 80 of 200 rows are the test set's.

    sft sweep --config=configs/ablations/duplicates.py --workdir=runs/ablations/duplicates

Found: with three seeds the leak flatters the loss (0.058 for 0.081) and the answers (85 % for 78),
though not beyond chance (p = 0.13 and 0.19). Rows twice cost little against 200 different ones (74
%, 0.101); the same rows once, half the steps, are far worse (33 %, 0.64, p = 0.03 for the loss). So
are the 12 steps without the leak (55 %, 0.46): runs this short lack steps more than anything.
"""

from sft.config import load
from sft.tune.points import paired, seeds


def get_config():
    return load("configs/ablations/base.py")


def points():
    names = ["200", "200_twice", "200_twice", "200_leaked", "200_leaked"]
    turned = {
        "data.train": [f"data/ablations/train_{name}.jsonl" for name in names],
        "data.dedup.exact": [True, False, True, True, True],
        "data.leakage.action": ["report", "report", "report", "report", "drop"],
    }
    return seeds(3, paired(turned))
