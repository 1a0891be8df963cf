"""Which files of a folder are the weights, and what to say where none are.

Folders collect files: what a trainer saved over a sharded model, backups, adapters, the state of an
optimiser. The files are chosen as Transformers chooses them: ``model.safetensors`` goes before an
index and its shards. Without either, all ``.safetensors`` files of the folder are one model, which
must not share a tensor (see ``safetensors.read_all``).
"""

import json
import re
from pathlib import Path

from sft.errors import UserError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_SHARD = re.compile(r"(.+)-([0-9]{1,6})-of-([0-9]{1,6})\.safetensors")
_NOT_WEIGHTS = re.compile(r"(adapter_model|optimizer|scheduler|trainer_state|rng_state)\b.*")
_FOREIGN = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.keras", "*.npz")
_ORBAX = tuple(
    place + name
    for place in ("", "default/")
    for name in ("manifest.ocdbt", "_METADATA", "*/.zarray", "*/*/.zarray")
)
_SEARCHED = ("*", "snapshots/*", "export/*", "*/merged")  # where weights lie in a folder of others


def files(folder: Path) -> list[Path]:
    """The ``.safetensors`` files that are the weights; none where there are no such files.

    Raises:
      UserError: an index that is damaged or names other places, or shards that are not there.
    """
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        return _indexed(folder / INDEX)
    there = (f for f in folder.glob("*.safetensors") if f.is_file())
    found = sorted(f for f in there if not _NOT_WEIGHTS.match(f.name))
    for file in found:
        if match := _SHARD.fullmatch(file.name):
            start, number, total = match.groups()
            numbers = (f"{i:0{len(number)}}" for i in range(1, int(total) + 1))
            names = [f"{start}-{i}-of-{total}.safetensors" for i in numbers]
            _check_there(folder, names, file.name)
    return found


def is_orbax(folder: Path) -> bool:
    """Whether arrays lie there as Orbax keeps them."""
    return any(any(folder.glob(pattern)) for pattern in _ORBAX)


def has_weights(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (WEIGHTS, INDEX)) or is_orbax(folder)


def explain(folder: Path) -> str:
    """Why a folder cannot be read as weights, and what to do."""
    if (folder / "adapter_config.json").exists():
        return (
            f"{folder}: adapters of PEFT, not weights. Set config.lora.start = {folder}, and "
            "config.model.weights to the weights of the model that they were trained on."
        )
    if (folder / "checkpoints").is_dir() and (folder / "config.json").exists():
        return (
            f"{folder}: a run of sft, not weights. Run `sft export --workdir={folder} "
            f"--format=safetensors`, and set config.model.weights = {folder}/export/safetensors."
        )
    below = sorted({f for pattern in _SEARCHED for f in folder.glob(pattern) if has_weights(f)})
    if below:
        return f"{folder}: no weights there, but in folders below it. Give {_either(below)}."
    gguf = sorted(folder.glob("*.gguf"))
    if gguf:
        return f"{folder}: GGUF weights are given as the file. Give {_either(gguf)}."
    lost = sorted(f for f in folder.glob("*.safetensors*") if f.is_symlink() and not f.exists())
    if lost:
        return f"{lost[0]}: a link to a file that is not there. Download the folder again."
    foreign = sorted(f for pattern in _FOREIGN for f in folder.glob(pattern))
    if foreign:
        return (
            f"{folder}: no .safetensors files there, and {foreign[0].name} is not read. Save the "
            f"model again: `transformers.AutoModelForCausalLM.from_pretrained({str(folder)!r})"
            ".save_pretrained(DIR)`, and give DIR."
        )
    return (
        f"{folder}: no weights there. Expected *.safetensors files or an Orbax checkpoint "
        "(manifest.ocdbt, or a .zarray per tensor)."
    )


def _either(paths: list[Path]) -> str:
    shown = [str(path) for path in paths[:3]]
    more = f" or one of {len(paths) - 3} more" if len(paths) > 3 else ""
    return " or ".join(shown) + more


def _indexed(index: Path) -> list[Path]:
    """The shards that an index names."""
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        if not names:
            raise ValueError("it is empty")
        wrong = next((n for n in names if not isinstance(n, str) or not _is_plain(n)), None)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{index}: expected JSON with a 'weight_map' ({_line(error)}). Download it again."
        ) from None
    if wrong is not None:
        raise UserError(
            f"{index}: 'weight_map' names {wrong!r:.100}, expected names of .safetensors files "
            "beside it. Download it again."
        )
    _check_there(index.parent, names, index.name)
    return [index.parent / name for name in names]


def _is_plain(name: str) -> bool:
    return Path(name).name == name and name.endswith(".safetensors") and "\0" not in name


def _check_there(folder: Path, names: list[str], what: str) -> None:
    for name in names:
        if not (folder / name).is_file():
            raise UserError(f"{folder / name}: missing, and {what} needs it. Download it.")


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:150]
