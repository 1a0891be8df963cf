"""``adapter_config.json`` of PEFT: every key honoured, harmless, or refused by its name.

A key that is not listed here belongs to a PEFT that is newer than this table (0.21.2). It is
refused unless its value is none: nothing that changes what an adapter computes is passed over.
"""

import dataclasses
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sft.errors import UserError
from sft.model.specs import Spec
from sft.model.weights import peft_injection

FILE = "adapter_config.json"

# What says nothing about the numbers, or only about those that the tensors show.
_HARMLESS = (
    *("task_type", "auto_mapping", "revision", "inference_mode", "peft_version", "runtime_config"),
    "lora_dropout",
    *("ensure_weight_tying", "megatron_core", "qalora_group_size"),
    # Of an initialisation, which init_lora_weights says whether it was used.
    *("loftq_config", "corda_config", "eva_config", "lora_ga_config"),
)
_HONOURED = (
    *("r", "lora_alpha", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern"),
    *("init_lora_weights", "base_model_name_or_path", "modules_to_save", *peft_injection.KEYS),
)
_MERGE = (
    "Merge it into its base model, `model.merge_and_unload().save_pretrained(DIR)` in PEFT, and "
    "set config.model.weights = DIR."
)
_AGAIN = "PEFT cannot merge it either: train again without."
# Key: the value that changes nothing, and what to do about others.
_REFUSED: dict[str, tuple[Any, str]] = {
    "peft_type": ("LORA", _MERGE),
    "bias": ("none", _MERGE),
    "fan_in_fan_out": (False, _MERGE),
    "trainable_token_indices": (None, _MERGE),
    "target_parameters": (None, _MERGE),
    "velora_config": (None, _MERGE),
    "kasa_config": (None, _MERGE),
    "monteclora_config": (None, _MERGE),
    "use_bdlora": (None, _MERGE),
    "lora_bias": (False, _AGAIN),
    "layer_replication": (None, _AGAIN),
    "alora_invocation_tokens": (None, _AGAIN),
    "use_qalora": (False, _AGAIN),
    "arrow_config": (None, _AGAIN),
    "megatron_config": (None, _AGAIN),
}
# Those that leave the base weights as they are, so that the adapter is the whole difference.
_PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal", "mica")
_CONVERTED = re.compile(r"pissa(_niter_\d+)?|olora|corda|lora_ga")  # PEFT can make them plain
_HEADS = re.compile(r"(^|\.)(embed_tokens|lm_head)\b")
_BASE = re.compile(r"gemma-?(\d)(n?)-(e?\d+(?:\.\d+)?[bm])(?![a-z0-9])", re.IGNORECASE)
_MODEL = re.compile(r"gemma\dn?_\w+")


@dataclasses.dataclass(frozen=True)
class Described:
    """What ``adapter_config.json`` says of the numbers.

    Attributes:
      path: of the file.
      rank, alpha: of every projection that the patterns do not name.
      rank_pattern, alpha_pattern: regular expression of names: rank, alpha.
      rslora: scaled by alpha / sqrt(rank).
      dora: each projection has magnitudes.
      injected: the keys that say which modules PEFT puts adapters on.
    """

    path: Path
    rank: int
    alpha: float
    rank_pattern: dict[str, int]
    alpha_pattern: dict[str, float]
    rslora: bool
    dora: bool
    injected: dict[str, Any]

    def check_injected(self, modules: Iterable[str]) -> None:
        """Raises a ``UserError`` for a module on which PEFT would put no adapter, by these keys: it
        would leave out the tensors that the file has for it."""
        for name in modules:
            if key := peft_injection.left_out(name, self.injected):
                raise UserError(
                    f"{self.path}: {key} = {_short(self.injected[key])} leaves out {name}, of "
                    "which the adapter has tensors. One of the two is of another adapter: save it "
                    "again with PEFT's save_pretrained."
                )

    def of(self, modules: Iterable[str]) -> tuple[int, float]:
        """Rank and alpha of these modules, which are to be the same for all.

        Raises:
          UserError: they are not.
        """
        found = {
            (_matching(self.rank_pattern, name, self.rank),
             _matching(self.alpha_pattern, name, self.alpha))
            for name in modules
        }  # fmt: skip
        if len(found) == 1:
            return found.pop()
        said = ", ".join(f"{rank} and {alpha:g}" for rank, alpha in sorted(found)[:4])
        raise UserError(
            f"{self.path}: rank_pattern and alpha_pattern give projections different ranks or "
            f"alphas ({said}), expected one for all. {_MERGE}"
        )


def read(path: Path, spec: Spec) -> Described:
    """What matters of ``adapter_config.json``, refused where it says what is not done here.

    Raises:
      UserError: missing, damaged, of another base model, or of a kind that is not read; names the
        key and says what to do.
    """
    found = _object(path)
    rank, alpha = (
        _rank(path, "r", found.get("r")),
        _alpha(path, "lora_alpha", found.get("lora_alpha")),
    )
    for key, value in found.items():
        if key in _REFUSED:
            neutral, remedy = _REFUSED[key]
            if value != neutral and value:
                raise _refusal(path, key, value, remedy)
        elif key not in (*_HARMLESS, *_HONOURED) and value not in (None, False, "", [], {}):
            raise UserError(
                f"{path}: {key} = {_short(value)}: a key that is not known here, so that what it "
                f"changes would be lost. {_MERGE}"
            )
    _check_heads(path, found)
    _check_start(path, found.get("init_lora_weights"))
    _check_base(path, found.get("base_model_name_or_path"), spec)
    patterns = [_pattern(path, key, found) for key in ("rank_pattern", "alpha_pattern")]
    return Described(
        path,
        rank,
        alpha,
        {name: _rank(path, f"rank_pattern: {name}", x) for name, x in patterns[0].items()},
        {name: _alpha(path, f"alpha_pattern: {name}", x) for name, x in patterns[1].items()},
        _flag(path, "use_rslora", found),
        _flag(path, "use_dora", found),
        {key: found[key] for key in peft_injection.KEYS if found.get(key)},
    )


def refuse_head(where: str) -> UserError:
    """Of an embedding or a head that was trained beside the adapters."""
    return UserError(
        f"{where}: an embedding or head trained beside the adapters. Gemma's head is its "
        "embedding, which stays here as it was published, so that such an adapter cannot be used "
        "in any way, nor what is merged of it. Train again without modules_to_save and new tokens."
    )


def _object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
        if not isinstance(found, dict):
            raise TypeError(f"a {type(found).__name__}, not an object")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:150]
        below = sorted(path.parent.glob(f"*/{FILE}"))  # as a trainer's checkpoints
        hint = f" Did you mean {below[-1].parent}?" if below and not path.exists() else ""
        raise UserError(
            f"{path}: cannot be read ({reason}). Expected the directory of a PEFT adapter.{hint}"
        ) from None
    return found


def _rank(path: Path, key: str, value: Any) -> int:
    if type(value) is not int or not 0 < value < 100_000:
        raise UserError(f"{path}: {key} = {_short(value)}: expected a whole number above 0.")
    return value


def _alpha(path: Path, key: str, value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and 0 < value < 1e30:
        return float(value)
    does_nothing = is_number and value == 0
    what = "with it the adapter does nothing" if does_nothing else "expected a number above 0"
    raise UserError(f"{path}: {key} = {_short(value)}: {what}. Save the adapter again.")


def _flag(path: Path, key: str, found: dict[str, Any]) -> bool:
    value = found.get(key)
    if value not in (None, False, True) or type(value) is int:
        raise UserError(f"{path}: {key} = {_short(value)}: expected true or false.")
    return bool(value)


def _pattern(path: Path, key: str, found: dict[str, Any]) -> dict[str, Any]:
    value = found.get(key) or {}
    if not isinstance(value, dict):
        raise UserError(f"{path}: {key} = {_short(value)}: expected names and numbers.")
    try:
        for name in value:
            re.compile(name)
    except re.error as error:
        raise UserError(
            f"{path}: {key} = {_short(value)}: expected regular expressions ({error})."
        ) from None
    return value


def _matching[T](pattern: dict[str, T], name: str, default: T) -> T:
    """As PEFT looks names up: an expression may leave out whole parts of the name's beginning."""
    for key, value in pattern.items():
        if re.match(rf"(.*\.)?({key})$", name):
            return value
    return default


def _check_heads(path: Path, found: dict[str, Any]) -> None:
    saved, targets = found.get("modules_to_save"), found.get("target_modules")
    if isinstance(targets, list) and _any_head(targets):
        raise refuse_head(f"{path}: target_modules = {_short(targets)}")
    if not saved:
        return
    # With tied weights, what is merged has one table for both.
    if _any_head(saved) and not found.get("ensure_weight_tying"):
        raise refuse_head(f"{path}: modules_to_save = {_short(saved)}")
    raise _refusal(path, "modules_to_save", saved, _MERGE)


def _any_head(names: Any) -> bool:
    return any(_HEADS.search(str(name)) for name in (names if isinstance(names, list) else [names]))


def _check_start(path: Path, start: Any) -> None:
    lower = start.lower() if isinstance(start, str) else start
    if any(lower is plain or lower == plain for plain in _PLAIN_STARTS) and type(start) is not int:
        return
    if isinstance(lower, str) and _CONVERTED.fullmatch(lower):
        raise UserError(
            f"{path}: init_lora_weights = {start!r} changed the base weights too, so that the "
            "adapter alone is not what was trained. Convert it where it was trained: "
            "`model.save_pretrained(DIR, path_initial_model_for_weight_conversion=START)`, with "
            "the adapter as it was before training saved in START; the result is read."
        )
    raise UserError(
        f"{path}: init_lora_weights = {_short(start)} is of a start that changes the base weights, "
        "or is not known here. Merge it where it was trained, `model.merge_and_unload()"
        ".save_pretrained(DIR)`, and set config.model.weights = DIR."
    )


def _check_base(path: Path, base: Any, spec: Spec) -> None:
    """A name that says another generation or size; shapes that differ are found later anyway."""
    named = _BASE.search(base) if isinstance(base, str) else None
    if not named or not _MODEL.fullmatch(spec.name):
        return
    name = f"gemma{named[1]}{named[2]}_{named[3]}".lower()
    if name != spec.name:
        raise UserError(
            f"{path}: base_model_name_or_path = {base!r} is {name}, and config.model.name = "
            f"{spec.name!r}: an adapter of another model. Give the weights that it was trained on."
        )


def _refusal(path: Path, key: str, value: Any, remedy: str) -> UserError:
    return UserError(f"{path}: {key} = {_short(value)}: such adapters are not read. {remedy}")


def _short(value: Any) -> str:
    try:
        text = json.dumps(value)
    except (
        TypeError,
        ValueError,
        RecursionError,
    ):  # among them whole numbers of thousands of digits
        text = f"a {type(value).__name__}"
    return text if len(text) <= 100 else text[:97] + "..."
