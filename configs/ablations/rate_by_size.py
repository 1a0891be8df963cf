"""Do learning rate and adapter size have to be tuned together?

Claim: no; with the update scaled by alpha / rank the best rate is nearly the same for every rank
(Schulman et al., LoRA Without Regret, 2025). The guide's table gives them together.

    sft sweep --config=configs/ablations/rate_by_size.py --workdir=runs/ablations/rate_by_size

Found: not run yet.
"""

from sft.config import load
from sft.tune.points import grid


def get_config():
    return load("configs/ablations/base.py")


def points():
    return grid({"lora.rank": [1, 8, 64], "optim.learning_rate": [3e-4, 1e-3, 3e-3]})
