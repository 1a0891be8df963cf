"""What the ablations have in common: the quickstart's task at a size that a CPU can repeat.

200 dates once, 20 steps; 40 rows choose, 80 are reported. ``scripts/ablation_data.py`` makes the
files. The rank-independent scale of 32 / rank is that of ``sft recommend``.
"""

from sft.config import load


def get_config():
    config = load("configs/quickstart.py")
    config.data.train = "data/ablations/train_200.jsonl"
    config.data.validation = "data/ablations/validation.jsonl"
    config.data.test = "data/ablations/test.jsonl"
    config.lora.alpha = 32.0
    config.optim.learning_rate = 1e-3
    config.train.epochs = 1
    config.train.keep_latest = 1
    config.train.baseline = False
    config.eval.batch_size = 100  # all at once: a step of generation reads all weights
    config.eval.suites = ""
    return config
