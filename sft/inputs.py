"""From the configuration to the files of the model: tokenizer and weights."""

from ml_collections import ConfigDict

from sft.data.tokenizer import Tokenizer, from_gguf, load
from sft.errors import UserError
from sft.model.specs import Spec
from sft.types import Tree


def tokenizer(config: ConfigDict, spec: Spec) -> Tokenizer:
    """``config.model.tokenizer``, or the one that comes with the weights.

    Raises:
      UserError: neither is there.
    """
    from sft.model import weights

    if config.model.tokenizer:
        path = weights.resolve(config.model.tokenizer)
        return (
            from_gguf(str(path), spec.vocab)
            if path.suffix == ".gguf"
            else load(str(path), spec.vocab)
        )
    path = weights.resolve(config.model.weights)
    if path.suffix == ".gguf":
        return from_gguf(str(path), spec.vocab)
    beside = (path if path.is_dir() else path.parent) / "tokenizer.model"
    if beside.exists():
        return load(str(beside), spec.vocab)
    raise UserError(
        f"config.model.tokenizer is not set and {beside} does not exist. "
        f"Set it to the SentencePiece tokenizer.model of {config.model.name}."
    )


def identity(config: ConfigDict) -> list[list]:
    """What tells these files of the model from others: name, bytes, time of the last change."""
    from sft.model import weights

    found = []
    for name in (config.model.weights, config.model.tokenizer, config.lora.start):
        if name:
            path = weights.resolve(name)
            files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
            stats = [(file, file.stat()) for file in files]
            found += [[str(file), stat.length, stat.mtime] for file, stat in stats]
    return found


def params(config: ConfigDict, spec: Spec, shardings: Tree) -> Tree:
    """The pretrained weights, placed.

    Raises:
      UserError: missing, damaged, or of another model.
    """
    from sft.model import lora, weights

    return weights.load(
        spec,
        config.model.weights,
        dtype=lora.weights_dtype(config),
        shardings=shardings,
        sha256=config.model.sha256,
    )
