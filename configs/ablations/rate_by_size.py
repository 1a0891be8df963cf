"""Do learning rate and adapter size have to be tuned together?

Claim: no; with the update scaled by alpha / rank the best rate is nearly the same for every rank
(Schulman et al., LoRA Without Regret, 2025). The guide's table gives them together.

    sft sweep --config=configs/ablations/rate_by_size.py --workdir=runs/ablations/rate_by_size

Found: as claimed: of three rates 1e-3 has the lowest loss at every rank (0.118, 0.078, 0.077 at 1,
8, 64), and 3e-4 gets as many right. How much is too much depends on the rank, though: at 3e-3,
ranks 1 and 8 get nothing right, and rank 64 still 42 %. One seed.
"""

from sft.config import load
from sft.tune.points import grid


def get_config():
    return load("configs/ablations/base.py")


def points():
    return grid({"lora.rank": [1, 8, 64], "optim.learning_rate": [3e-4, 1e-3, 3e-3]})
