"""What a command works on: the run directory, the model and its files, and the sets."""

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict

from sft.data.sets.loading import Sets
from sft.data.tokenizer.sentencepiece import Tokenizer
from sft.errors import UserError
from sft.model.specs import SPECS, Spec, get
from sft.run import directory

if TYPE_CHECKING:
    from sft.types import Tree

_PUBLISHED = "gs://gemma-data/"  # where the checkpoints lie that gemma has names for


class Session:
    """What a command works on. Each part is opened when it is first asked for, and then kept.

    Attributes:
      config: the configuration, checked and with the model's name.
      workdir: the run directory as it was given, before anything is made there.
    """

    def __init__(self, config: ConfigDict, workdir: str = "", *, only_scores: bool = False):
        """Opens nothing yet.

        Args:
          workdir: the run directory, which may be in a bucket; ``""`` where none is needed.
          only_scores: see ``directory.prepare``.
        """
        self.config = config
        self.workdir, self._only_scores = workdir, only_scores

    @functools.cached_property
    def path(self) -> Path:
        """The run directory, made or found to belong to this configuration.

        Raises:
          UserError: see ``directory.prepare``.
        """
        return directory.prepare(self.config, self.workdir, self._only_scores)

    @functools.cached_property
    def spec(self) -> Spec:
        """The model's row of the table."""
        return get(self.config.model.name)

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer; see the function ``tokenizer``."""
        return tokenizer(self.config, self.spec)

    @functools.cached_property
    def sets(self) -> Sets:
        """The sets, each of which is read and tokenised once."""
        return Sets(self.config, self.spec, self.tokenizer)

    def params(self, shardings: "Tree") -> "Tree":
        """The pretrained weights, read again at each call: there is no room for a second copy."""
        return params(self.config, self.spec, shardings)


def name_model(config: ConfigDict, workdir: str = "", *, required: bool = True) -> None:
    """Sets ``config.model.name``, where it is ``''``, to the model that the weights are of.

    Where it is given, it is compared with what lies beside the weights.

    Args:
      workdir: of a run, which knows its model where the weights are not here.
      required: the command reads the weights. Others leave the name open where it is not found.

    Raises:
      UserError: the weights are of another model, or (``required``) of none that is known.
    """
    from sft.model.weights import naming

    path, given = config.model.weights, config.model.name
    if given:
        if required and naming.is_there(path):
            naming.check(path, get(given))
        return
    if not path and required:
        raise UserError(
            "config.model.name = '': it is found from config.model.weights, which is not set. Set "
            f"one of them. Names: {', '.join(SPECS)}."
        )
    if required or naming.is_there(path):
        config.model.name = naming.find(path).name
    elif workdir:
        config.model.name = _stored_name(config, workdir)


def _stored_name(config: ConfigDict, workdir: str) -> str:
    """The model of the run there, if it is one of the same weights."""
    if not (directory.path_of(workdir) / "config.json").exists():
        return ""
    stored = directory.stored_config(workdir)
    return stored.model.name if stored.model.weights == config.model.weights else ""


def tokenizer(config: ConfigDict, spec: Spec) -> Tokenizer:
    """``config.model.tokenizer``, or the one that comes with the weights.

    Raises:
      UserError: neither is there, or it is not one for this model.
    """
    from sft.data.read import opening
    from sft.data.tokenizer import files as tokenizer_files
    from sft.model import weights

    given = config.model.tokenizer
    if given:
        path = weights.resolve(given, setting="config.model.tokenizer")
        return tokenizer_files.read(path, spec.tokens)
    path = weights.resolve(config.model.weights)
    if path.suffix == ".gguf":
        return tokenizer_files.read(path, spec.tokens)
    if str(path).startswith(_PUBLISHED):
        raise UserError(
            f"config.model.tokenizer is not set, and {config.model.weights} comes without one. Set "
            f"it to {_PUBLISHED}tokenizers/tokenizer_{spec.family}.model, or to a copy of that."
        )
    with opening.one_line(str(path)):
        folder = path if path.is_dir() else path.parent
        found = tokenizer_files.beside(folder, spec.tokens)
    if found is None:
        raise UserError(
            f"config.model.tokenizer is not set, and {folder / tokenizer_files.MODEL} does not "
            f"exist, nor {tokenizer_files.JSON} beside it. Set it to the tokenizer.model or "
            f"tokenizer.json of {config.model.name}."
        )
    return found


def identity(config: ConfigDict) -> list[list[Any]]:
    """What tells these files of the model from others: see ``sft.model.weights.stamps``."""
    from sft.model import weights

    settings = {
        f"config.{key}": config[group][leaf]
        for key in ("model.weights", "model.tokenizer", "lora.start")
        for group, leaf in [key.split(".")]
    }
    return [
        stamp
        for setting, name in settings.items()
        if name
        for stamp in weights.stamps(weights.resolve(name, setting=setting))
    ]


def params(config: ConfigDict, spec: Spec, shardings: "Tree") -> "Tree":
    """The pretrained weights, placed.

    Raises:
      UserError: missing, damaged, or of another model.
    """
    from sft.data.tokenizer import files as tokenizer_files
    from sft.model import lora, weights

    def added() -> list[str] | None:
        """Tokens beyond the model's that the tokenizer beside the weights has."""
        return tokenizer_files.added(weights.resolve(config.model.weights), spec.tokens)

    return weights.load(
        spec,
        config.model.weights,
        dtype=lora.weights_dtype(config),
        shardings=shardings,
        sha256=config.model.sha256,
        added=added,
    )
