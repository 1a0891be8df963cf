"""Folders of weights as Hugging Face's libraries leave them, of the tiny model of ``tiny_run``.

What is not weights is what transformers 5.23 wrote (``scripts/oracle/hf_folders.py``); its config
describes ``tiny_run.SPEC``, its tokenizer is that of ``test_tokenizer.tiny``.
"""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import tiny_run
from safetensors.numpy import save_file
from test_tokenizer import tiny
from weight_layouts import hf_tensors, make_tree

GOLDEN = Path(__file__).parent / "golden" / "transformers"
KINDS = ("file", "shards", "json")


def tree(scale: float = 0.1):
    """Weights small enough to be learnt from."""
    return jax.tree.map(lambda x: x * scale, make_tree(tiny_run.SPEC))


def write(folder: Path, kind: str = "file") -> Path:
    """A folder of one of ``KINDS``.

    * ``file``: one file, and both files of the tokenizer, as on the hub;
    * ``shards``: shards with an index and an image tower, as Gemma3ForConditionalGeneration saves;
    * ``json``: one file and no ``tokenizer.model``, as transformers 5 saves.
    """
    folder.mkdir(parents=True)
    shutil.copy(GOLDEN / "gemma3" / "tokenizer.json", folder)
    if kind == "shards":
        _write_shards(folder)
        return folder
    shutil.copy(GOLDEN / "gemma3" / "config.json", folder)
    save(folder, tree())
    if kind == "file":
        (folder / "tokenizer.model").write_bytes(tiny().model)
    return folder


def save(folder: Path, weights) -> None:
    """Other weights into a folder of one file."""
    save_file(hf_tensors(tiny_run.SPEC, weights), folder / "model.safetensors")


def _write_shards(folder: Path) -> None:
    for name in ("config.json", "model.safetensors.index.json"):
        shutil.copy(GOLDEN / "images" / name, folder)
    files = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    tensors = hf_tensors(tiny_run.SPEC, tree(), "language_model.model.")
    tensors |= {name: np.ones(3, np.float32) for name in files if name not in tensors}
    for file in set(files.values()):
        save_file({n: x for n, x in tensors.items() if files[n] == file}, folder / file)


def change_json(file: Path, **values) -> None:
    """Sets keys of a JSON file; ``None`` takes a key away."""
    known = json.loads(file.read_text()) | values
    file.write_text(json.dumps({key: value for key, value in known.items() if value is not None}))
