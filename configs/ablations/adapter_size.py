"""Does the adapter size matter for a small data set?

Claim: hardly, from a very small rank on (Hu et al., LoRA, 2021, §7.2); with the update scaled by
alpha / rank, one learning rate suits all ranks (Schulman et al., LoRA Without Regret, 2025).

    sft sweep --config=configs/ablations/adapter_size.py --workdir=runs/ablations/adapter_size

Found: not run yet.
"""

from sft.config import load
from sft.tune.points import grid, seeds


def get_config():
    return load("configs/ablations/base.py")


def points():
    return seeds(3, grid({"lora.rank": [1, 4, 16, 64]}))
