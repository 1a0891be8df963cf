"""Loss on prompts too, or on answers alone?

Claim: loss on prompts helps where answers are short and data few (Shi et al., Instruction Tuning
With Loss Over Instructions, 2024), a small weight more than none or all of it (Huerta-Enochian and
Ko, Instruction Fine-Tuning: Does Prompt Loss Matter?, 2024).

    sft sweep --config=configs/ablations/prompt_loss.py --workdir=runs/ablations/prompt_loss

Found: not here: answers alone are best, 82 % right at a loss of 0.072; a weight of 0.1 gives 79 %
and 0.100, all of it 78 % and 0.170 (two seeds, p = 0.07 and 0.08 for the loss).
"""

from sft.config import load
from sft.tune.points import grid, seeds


def get_config():
    return load("configs/ablations/base.py")


def points():
    return seeds(2, grid({"loss.prompt_weight": [0.0, 0.1, 1.0]}))
