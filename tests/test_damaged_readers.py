"""Whatever is changed in a header, what is read is what was written, or a line says what is wrong.

Mutations are drawn by seed: bytes of a header, and values of its fields.
"""

import dataclasses
import json
import random

import hf_folders
import jax
import numpy as np
import pytest
import tiny_run
from peft_folders import ADAPTERS, CONFIG
from safetensors.numpy import save_file
from weight_layouts import make_tree, write_gguf, write_hf

from sft.data.tokenizer.hf_json import from_json
from sft.errors import UserError
from sft.model import weights
from sft.model.weights import gguf, hf_config, naming, peft

registered = tiny_run.registered
SPEC = dataclasses.replace(tiny_run.SPEC, num_layers=1, vocab=64)
TREE = make_tree(SPEC)
ROUNDS = 150
ODD = (
    *(None, True, False, -1, 0, 1, 2, 10**30, -(10**30), 2**63, 2**64, 1.5, float("nan")),
    *(float("inf"), "", "x", ".", "..", "\x00", "F32", "F16", "I8", [], {}, [0], [-1, 5], [[1]]),
    *([32, 64], [64, 32], [2048], [10**30], [0, 0], [4, 4 + 64 * 32 * 4], {"a": {"a": {}}}),
)


def survives(read, expected):
    """Whether it was read, and then as it is; ``False`` = refused in a line."""
    try:
        found = read()
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 1500
        return False
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    assert jax.tree.all(jax.tree.map(np.array_equal, found, expected))
    return True


def mutated(rng, value):
    """``value`` with something in it replaced, taken away or added."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        rest = {k: x for k, x in value.items() if k != key}
        kind = rng.random()
        if kind < 0.1:
            return rest
        if kind < 0.2:
            return rest | {rng.choice(list(value)): value[key]}
        return {k: mutated(rng, x) if k == key else x for k, x in value.items()}
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        return [mutated(rng, x) if i == at else x for i, x in enumerate(value)]
    if isinstance(value, int) and not isinstance(value, bool) and rng.random() < 0.5:
        return value + rng.choice([-128, -4, -1, 1, 4, 128])
    return rng.choice(ODD)


def flipped(rng, content, end):
    """Some bytes before ``end`` changed; what is after them stays."""
    changed = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 5])):
        changed[rng.randrange(end)] = rng.choice([0, 1, 8, 9, 26, 48, 57, 127, 255, 91, 123, 34])
    return bytes(changed)


def load(path):
    return weights.load(SPEC, str(path), dtype="float32")


def test_safetensors(tmp_path):
    write_hf(tmp_path / "m.safetensors", SPEC, TREE)
    content = (tmp_path / "m.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    path, rng, survived = tmp_path / "bad.safetensors", random.Random(0), 0
    for _ in range(ROUNDS):
        text = json.dumps(mutated(rng, header)).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + data)
        survived += survives(lambda: load(path), TREE)
        path.write_bytes(flipped(rng, content, 8 + length))
        survived += survives(lambda: load(path), TREE)
    assert survived < ROUNDS / 5  # in names and spaces that mean nothing


@pytest.mark.parametrize(
    "entry",
    [
        {"data_offsets": [-4, 64 * 32 * 4 - 4]},
        {"data_offsets": [4, 64 * 32 * 4 + 4]},
        {"data_offsets": [0, 10**30]},
        {"data_offsets": [8, 0]},
        {"shape": [10**30]},
        {"shape": [64, 32, 1, 0]},
        {"shape": [-64, -32]},
        {"dtype": "F16", "shape": [64, 64]},
        {"dtype": "BF16"},
    ],
)
def test_places_of_safetensors(tmp_path, entry):
    """Every tensor lies inside the file, has the bytes of its shape and overlaps no other."""
    write_hf(tmp_path / "m.safetensors", SPEC, TREE)
    content = (tmp_path / "m.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["model.embed_tokens.weight"] |= entry
    text = json.dumps(header).encode()
    path = tmp_path / "bad.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    with pytest.raises(UserError, match=r"bad\.safetensors"):
        load(path)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "\xff", "{}", "null", "3"])
def test_headers_of_safetensors(tmp_path, text):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(len(text.encode()).to_bytes(8, "little") + text.encode())
    with pytest.raises(UserError, match=r"bad\.safetensors: "):
        load(path)


def test_gguf(tmp_path):
    write_gguf(tmp_path / "m.gguf", SPEC, TREE)
    content = (tmp_path / "m.gguf").read_bytes()
    start = gguf.read(tmp_path / "m.gguf").start
    path, rng, survived = tmp_path / "bad.gguf", random.Random(0), 0
    for _ in range(2 * ROUNDS):
        path.write_bytes(flipped(rng, content, start))
        survived += survives(lambda: load(path), TREE)
    assert 0 < survived < ROUNDS  # in the vocabulary, which is not read here


def write_metadata(path, key, kind, value):
    """A file with one key, whose value is of a type by its number."""
    name = key.encode()
    text = len(name).to_bytes(8, "little") + name + kind.to_bytes(4, "little") + value
    head = b"GGUF" + (3).to_bytes(4, "little") + (0).to_bytes(8, "little")
    path.write_bytes(head + (1).to_bytes(8, "little") + text)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (6, np.float32(32).tobytes()),  # a float
        (5, np.int32(-32).tobytes()),
        (4, np.uint32(0).tobytes()),
        (4, np.uint32(33).tobytes()),
        (7, b"\1"),
        (9, (9).to_bytes(4, "little") + (1).to_bytes(8, "little")),
    ],
)
def test_alignment_of_gguf(tmp_path, kind, value):
    write_metadata(tmp_path / "a.gguf", "general.alignment", kind, value)
    with pytest.raises(UserError, match=r"a\.gguf: damaged or cut short in its header"):
        gguf.read(tmp_path / "a.gguf")


def test_arrays_in_arrays_of_gguf(tmp_path):
    nested = b"".join((9).to_bytes(4, "little") + (1).to_bytes(8, "little") for _ in range(50_000))
    write_metadata(tmp_path / "a.gguf", "general.architecture", 9, nested)
    with pytest.raises(UserError, match="arrays in arrays"):
        gguf.read(tmp_path / "a.gguf")


def test_adapters(tmp_path):
    save_file(peft.tensors(ADAPTERS, tiny_run.SPEC), tmp_path / peft.FILE)
    content = (tmp_path / peft.FILE).read_bytes()
    length = int.from_bytes(content[:8], "little")
    rng, survived = random.Random(0), 0

    def read():
        found, scale = peft.read(tmp_path, tiny_run.SPEC)
        assert 0 < scale < 1e30
        return found

    for _ in range(ROUNDS):
        (tmp_path / peft.FILE).write_bytes(content)
        (tmp_path / peft.CONFIG).write_text(json.dumps(mutated(rng, CONFIG)))
        survived += survives(read, ADAPTERS)
        (tmp_path / peft.CONFIG).write_text(json.dumps(CONFIG))
        (tmp_path / peft.FILE).write_bytes(flipped(rng, content, 8 + length))
        survives(read, ADAPTERS)
    assert ROUNDS / 3 < survived < ROUNDS  # most keys say nothing about the numbers


def test_tokenizers(tmp_path):
    """A vocabulary that is read cuts text as the one that was written, or was really changed."""
    raw = json.loads((hf_folders.GOLDEN / "gemma3" / "tokenizer.json").read_text())
    rng, path = random.Random(0), tmp_path / "tokenizer.json"
    for _ in range(ROUNDS):
        path.write_text(json.dumps(mutated(rng, raw)))
        survives(lambda: from_json(str(path), 512) and 1, 1)
        path.write_bytes(flipped(rng, json.dumps(raw).encode(), 200))
        survives(lambda: from_json(str(path), 512) and 1, 1)


def test_descriptions(tmp_path):
    """Of the weights of a folder: another model is never taken for the one that is there."""
    folder = hf_folders.write(tmp_path / "w")
    raw = json.loads((folder / "config.json").read_text())
    rng, survived = random.Random(0), 0
    for _ in range(ROUNDS):
        (folder / "config.json").write_text(json.dumps(mutated(rng, raw)))
        survived += survives(lambda: naming.find(str(folder)).num_layers, 3)
        survives(lambda: bool(hf_config.read(folder / "config.json")) or True, True)
    assert survived < 0.7 * ROUNDS
