"""A system instruction in training and serving: in both, in neither, in one of the two.

Claim: prompts of the tuning data must look like production's (Google Cloud, Supervised fine-tuning
for Gemini: a best-practices guide, 2025). Each run is served with the instruction (set test) and
without (test_bare).

    sft sweep --config=configs/ablations/instruction.py --workdir=runs/ablations/instruction

Found: not run yet.
"""

from sft.config import load
from sft.tune.points import paired, seeds


def get_config():
    config = load("configs/ablations/base.py")
    config.data.test = "data/ablations/test.jsonl,data/ablations/test_bare.jsonl"
    config.train.baseline = True
    return config


def points():
    names = ["train_200", "train_200_bare"]
    return seeds(3, paired({"data.train": [f"data/ablations/{name}.jsonl" for name in names]}))
