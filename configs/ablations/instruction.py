"""A system instruction in training and serving: in both, in neither, in one of the two.

Claim: prompts of the tuning data must look like production's (Google Cloud, Supervised fine-tuning
for Gemini: a best-practices guide, 2025). Each run is served with the instruction (set test) and
without (test_bare).

    sft sweep --config=configs/ablations/instruction.py --workdir=runs/ablations/instruction

Found: no skew to see. Trained with it, 78 % right served with it and 80 % without; trained without
it, 76 % and 75 %; nothing is significant. A form that never varies says nothing that training on
answers does not. Without it the same rows are fewer tokens, and so 15 steps instead of 20.
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
