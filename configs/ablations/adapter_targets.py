"""Where should adapters go: attention, MLP, or both?

Claim: all layers; attention alone is worse even with as many parameters, MLP alone about as good as
all (Schulman et al., LoRA Without Regret, 2025). Hu et al. (LoRA, 2021) adapted attention alone.
Ranks 18, 11 and 7 give adapters of nearly the same size in all three.

    sft sweep --config=configs/ablations/adapter_targets.py --workdir=runs/ablations/adapter_targets

Found: as claimed: with three seeds attention alone has a loss of 0.124 against 0.078 for all (p =
0.005) and 0.072 for MLP alone, which is as good as all; 73, 78 and 79 % right (p = 0.12).
"""

from sft.config import load
from sft.tune.points import paired, seeds


def get_config():
    return load("configs/ablations/base.py")


def points():
    places = {"lora.targets": ["q|k|v|o|gate|up|down", "gate|up|down", "q|k|v|o"]}
    return seeds(3, paired(places | {"lora.rank": [7, 11, 18]}))
