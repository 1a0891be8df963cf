"""Loss on prompts too, or on answers alone?

Claim: loss on prompts helps where answers are short and data few (Shi et al., Instruction Tuning
With Loss Over Instructions, 2024), a small weight more than none or all of it (Huerta-Enochian and
Ko, Instruction Fine-Tuning: Does Prompt Loss Matter?, 2024).

    sft sweep --config=configs/ablations/prompt_loss.py --workdir=runs/ablations/prompt_loss

Found: not here: answers alone have the lowest loss, 0.081; a weight of 0.1 costs 0.029 (p = 0.005,
three seeds), all of it 0.176 (p = 0.15). The right answers are the same: 78, 77 and 79 %.
"""

from sft.config import load
from sft.tune.points import grid, seeds


def get_config():
    return load("configs/ablations/base.py")


def points():
    return seeds(3, grid({"loss.prompt_weight": [0.0, 0.1, 1.0]}))
