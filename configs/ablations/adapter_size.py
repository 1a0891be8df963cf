"""Does the adapter size matter for a small data set?

Claim: hardly, from a very small rank on (Hu et al., LoRA, 2021, §7.2); with the update scaled by
alpha / rank, one learning rate suits all ranks (Schulman et al., LoRA Without Regret, 2025).

    sft sweep --config=configs/ablations/adapter_size.py --workdir=runs/ablations/adapter_size

Found: as claimed: with three seeds each, rank 1 gets 72 % right, 4 gets 76, 16 gets 79 and 64 gets
77, at losses of 0.097, 0.085, 0.078 and 0.080; none of it is beyond chance (p > 0.14).
"""

from sft.config import load
from sft.tune.points import grid, seeds


def get_config():
    return load("configs/ablations/base.py")


def points():
    return seeds(3, grid({"lora.rank": [1, 4, 16, 64]}))
