"""What a command opens: each part once, and only when it is asked for."""

from collections import Counter

import pytest
import tiny_run

from sft.data.batches import examples
from sft.data.read import records
from sft.errors import UserError
from sft.session import Session

shared, registered = tiny_run.shared, tiny_run.registered


@pytest.fixture
def counted(monkeypatch):
    """How often each file was read, and how often so many rows were tokenised in one way."""
    read, tokenised = Counter(), Counter()
    real_read, real_encode = records.read, examples.encode_all

    def reading(sources, *args, **more):
        read.update(source.name for source in sources)
        return real_read(sources, *args, **more)

    def encoding(conversations, tok, form, train_on, **more):
        tokenised[len(conversations), train_on] += 1
        return real_encode(conversations, tok, form, train_on, **more)

    monkeypatch.setattr(records, "read", reading)
    monkeypatch.setattr(examples, "encode_all", encoding)
    return read, tokenised


def test_training_with_all_that_looks_at_rows_reads_each_set_once(shared, tmp_path, counted):
    """Deduplication, the baseline with labels and examples in its prompts, and validations."""
    more = ["--config.train.baseline", "--config.eval.shots=2", "--config.eval.labels=expected"]
    more += ["--config.eval.during_training=4", "--config.train.epochs=1"]
    assert shared.main("train", tmp_path, *more) == 0
    read, tokenised = counted
    assert read == {str(shared.path / f"{name}.jsonl"): 1 for name in tiny_run.SIZES}
    assert {(size, "all") for size in tiny_run.SIZES.values()} < set(tokenised)
    assert set(tokenised.values()) == {1}  # "last" are the answers whose likelihood is a score


def test_scores_with_labels_and_examples_read_each_set_once(shared, tmp_path, counted):
    more = ["--checkpoint=base", "--config.eval.shots=2", "--config.eval.labels=expected"]
    assert shared.main("eval", tmp_path, *more) == 0
    read, _ = counted
    assert read == {str(shared.path / f"{name}.jsonl"): 1 for name in ("train", "test")}


def test_nothing_is_opened_before_it_is_asked_for(shared, tmp_path):
    config = shared.values()
    config.model.tokenizer = str(tmp_path / "none.model")
    session = Session(config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    assert session.path.exists() and session.spec is tiny_run.SPEC
    with pytest.raises(UserError, match=r"none\.model"):
        session.tokenizer  # noqa: B018


def test_sets_are_the_same_object_again(shared, tmp_path):
    sets = Session(shared.values()).sets
    both = sets.load(["train", "validation"])
    assert sets.load(["validation"])["validation"] is both["validation"]
    assert sets.tests() == sets.tests()
    assert sets.rows(["train"])["train"].conversations == both["train"].conversations
