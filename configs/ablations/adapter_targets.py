"""Where should adapters go: attention, MLP, or both?

Claim: all layers; attention alone is worse even with as many parameters, MLP alone about as good as
all (Schulman et al., LoRA Without Regret, 2025). Hu et al. (LoRA, 2021) adapted attention alone.
Ranks 18, 11 and 7 give adapters of nearly the same size in all three.

    sft sweep --config=configs/ablations/adapter_targets.py --workdir=runs/ablations/adapter_targets

Found: as claimed in direction, not beyond chance: MLP alone 80 % right, all 79 %, attention alone
72.5 % and a loss of 0.12 instead of 0.08 (p = 0.08, two seeds).
"""

from sft.config import load
from sft.tune.points import paired, seeds


def get_config():
    return load("configs/ablations/base.py")


def points():
    places = {"lora.targets": ["q|k|v|o|gate|up|down", "gate|up|down", "q|k|v|o"]}
    return seeds(3, paired(places | {"lora.rank": [7, 11, 18]}))
