"""Which model weights are of: by a checkpoint's name, by what lies beside them, or by their shapes.

``config.json`` and the metadata of GGUF say more than shapes do: windows, RoPE, scales and caps.
All that they say is compared with the model table, so that a model with, say, a longer RoPE is
refused by the name of the field rather than computed as if it had none.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sft.errors import UserError
from sft.model.specs import SPECS, LayerKind, Spec
from sft.model.weights import gguf, hf_config, package, places

Described = Mapping[str, Any]  # field, as its file names it: value


def is_there(path: str) -> bool:
    """Whether it can be told what the weights are of without more than reading them."""
    return bool(path) and (_by_name(path) is not None or places.exists(path))


def find(path: str) -> Spec:
    """The row of the model table that the weights at ``path`` are of.

    Args:
      path: as ``places.resolve`` takes it.

    Raises:
      UserError: no weights there, or of no model of the table; names what differs from the nearest.
    """
    if name := _by_name(path):
        return SPECS[name]
    place = places.resolve(path)
    where, found, expected = _described(place)
    fitting = [spec for spec in SPECS.values() if not _differences(found, expected(spec))]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        raise UserError(f"{where}: {_altered(found, expected)}")
    return _by_shapes(place)  # too little is said, or nothing


def check(path: str, spec: Spec) -> None:
    """Compares ``spec`` with what is said of the weights at ``path``; reads no weights.

    Raises:
      UserError: they are said to be of another model; names the field, found and expected.
    """
    if name := _by_name(path):
        if name != spec.name:
            raise UserError(
                f"config.model.name = {spec.name!r}: {path} is {name}. Set config.model.name = "
                f"{name!r}, or '' to have it found."
            )
        return
    place = places.resolve(path)
    where, found, expected = _described(place)
    wrong = _differences(found, expected(spec))
    if not wrong:
        return
    others = [s for s in SPECS.values() if not _differences(found, expected(s))]
    field, value, want = wrong[0]
    hint = f"Set config.model.name = {others[0].name!r}." if others else _altered(found, expected)
    raise UserError(f"{where}: {field} is {_short(value)}, and {spec.name} has {want!r}. {hint}")


def _by_name(path: str) -> str | None:
    """The model of an official checkpoint or of a package, which need not be opened for it."""
    if path.startswith("package:"):
        return package.MODELS.get(path.removeprefix("package:"))
    return None if Path(path).exists() else places.official_model(path)


_GGUF: Mapping[str, Callable[[Spec], Any]] = {
    "block_count": lambda spec: spec.num_layers,
    "embedding_length": lambda spec: spec.embed,
    "feed_forward_length": lambda spec: spec.hidden,
    "attention.head_count": lambda spec: spec.heads,
    "attention.head_count_kv": lambda spec: spec.kv_heads,
    "attention.key_length": lambda spec: spec.head_dim,
    "attention.value_length": lambda spec: spec.head_dim,
    "attention.sliding_window": lambda spec: next(window for window in spec.windows if window),
    "attention.layer_norm_rms_epsilon": lambda spec: 1e-6,
    "rope.freq_base": lambda spec: _whole(spec).rope_base,
    "rope.scaling.factor": lambda spec: _whole(spec).rope_scale,
    "attn_logit_softcapping": lambda spec: spec.attn_softcap,
    "final_logit_softcapping": lambda spec: spec.final_softcap,
}


def _whole(spec: Spec) -> LayerKind:
    return next(kind for kind in spec.pattern if kind.window is None)


def _gguf_fields(metadata: Described) -> Described:
    """What the metadata say of the model; the architecture first."""
    family = metadata.get("general.architecture")
    keys = ["general.architecture", *(f"{family}.{key}" for key in _GGUF)]
    return {key: metadata[key] for key in keys if key in metadata}


def _gguf_expected(spec: Spec) -> Described:
    sizes = {f"{spec.family}.{key}": of_spec(spec) for key, of_spec in _GGUF.items()}
    return {"general.architecture": spec.family} | sizes


def _described(place: Path) -> tuple[str, Described, Callable[[Spec], Described]]:
    """The file that says what the weights are, what it says, and what it would say of a model."""
    if places.is_remote(place):
        return "", {}, lambda spec: {}
    if place.is_file() and place.suffix == ".gguf":
        metadata = gguf.read(place).metadata
        return str(place), _gguf_fields(metadata), _gguf_expected
    file = (place if place.is_dir() else place.parent) / hf_config.FILE
    found = hf_config.read(file) if file.is_file() else {}
    return str(file), found, hf_config.expected


def _differences(found: Described, expected: Described) -> list[tuple[str, Any, Any]]:
    """``(field, found, expected)`` of each field that differs, sizes first."""
    return [
        (field, value, expected.get(field))
        for field, value in found.items()
        if not _same(value, expected.get(field))
    ]


def _same(value: Any, want: Any) -> bool:
    if isinstance(value, float) or isinstance(want, float):
        numbers = isinstance(value, float | int) and isinstance(want, float | int)
        return numbers and abs(value) < 1e30 and math.isclose(value, want, rel_tol=1e-4)
    return type(value) is type(want) and value == want


def _altered(found: Described, expected: Callable[[Spec], Described]) -> str:
    """What is to be said of a model that is none of the table."""
    near = min(SPECS.values(), key=lambda spec: len(_differences(found, expected(spec))))
    wrong = _differences(found, expected(near))
    said = ", ".join(f"{field} {_short(value)}, not {want!r}" for field, value, want in wrong[:4])
    more = f" and {len(wrong) - 4} more" if len(wrong) > 4 else ""
    return (
        f"not a model that can be used: nearest is {near.name}, with {said}{more}. Known: "
        f"{', '.join(SPECS)}."
    )


def _short(value: Any) -> str:
    return f"{value!r:.80}"


def _by_shapes(place: Path) -> Spec:
    """The model whose every tensor is there.

    Raises:
      UserError: there is none; says what the one that most tensors fit lacks.
    """
    from sft.model import weights
    from sft.model.weights import checks  # brings JAX

    opened = weights.opened(place)
    misfits: list[tuple[int, Spec, UserError]] = []
    for spec in SPECS.values():
        fitting = 0
        try:
            source = opened(spec)
            fitting = checks.fitting(source, spec)
            checks.check_shapes(source, spec)
        except UserError as error:
            misfits.append((fitting, spec, error))
            continue
        return spec
    _, spec, error = max(misfits, key=lambda misfit: misfit[0])
    raise UserError(f"{error} Of the known models, {spec.name} is nearest: {', '.join(SPECS)}.")
