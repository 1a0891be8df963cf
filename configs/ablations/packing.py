"""Several examples in a row, or one: the same model, if packing is right.

Claim: rows kept apart by segments train as single ones (Krell et al., Efficient Sequence Packing
without Cross-contamination, 2021). A batch is the whole set of 20 rows, so that only the rows it is
cut into differ; in float32, where nothing is rounded away.

    sft sweep --config=configs/ablations/packing.py --workdir=runs/ablations/packing

Found: it is. After five steps the losses on the test set differ by 8e-6 nats, and all answers are
the same ones.
"""

from sft.config import load
from sft.tune.points import paired


def get_config():
    config = load("configs/ablations/base.py")
    config.model.dtype = "float32"
    config.data.train = "data/ablations/train_20.jsonl"
    config.data.max_length = 128
    config.train.epochs = 5
    return config


def points():
    return paired({"data.pack": [True, False], "train.batch_size": [10, 20]})
