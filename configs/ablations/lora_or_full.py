"""LoRA against full tuning, each at its best rate of three: what is learnt, what is forgotten?

Claim: LoRA learns less and forgets less (Biderman et al., 2024); it learns as much where data are
few, at a rate ten times as high (Schulman et al., LoRA Without Regret, 2025). Forgetting is the
loss on answers of ShareGPT, of which nothing is trained.

    sft sweep --config=configs/ablations/lora_or_full.py --workdir=runs/ablations/lora_or_full

Found: not run yet.
"""

from sft.config import load
from sft.tune.points import grid


def get_config():
    config = load("configs/ablations/base.py")
    config.data.test = "data/ablations/test.jsonl,data/ablations/general.jsonl"
    config.train.baseline = True  # what there is to forget
    return config


def points():
    yield from grid({"lora.rank": [8], "optim.learning_rate": [3e-4, 1e-3, 3e-3]})
    yield from grid({"lora.rank": [0], "optim.learning_rate": [3e-5, 1e-4, 3e-4]})
