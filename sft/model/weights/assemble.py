"""From a source of named tensors to our parameter tree, on its devices, one leaf at a time.

A source is one checkpoint of one format. It knows where each part of our tree lies (``entry``) and
returns it in our orientation (``tensor``); everything else is done here, once for all formats.
"""

import concurrent.futures
import logging
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from sft.errors import UserError
from sft.model import decoder
from sft.model.specs import SPECS, TOKENS, Spec

EMBED = "embed_VxD"
FINAL_NORM = "final_norm_D"

# Vocabularies that are also published with another number of rows. Gemma 2: 256,000 pieces on
# Hugging Face, padded here with zero rows, whose logits are exactly 0 (no tokenizer makes those
# ids). Gemma 3 from 4B up: 64 more rows there, for image tokens, dropped here.
OTHER_ROWS = {256_128: 256_000, 262_144: 262_208}
_EXTENDED = (
    "Use the weights from before the tokens were added, and write such markers as ordinary text; "
    "<unused0>, <unused1>, … in data are ordinary text too."
)
_CHUNK_ELEMENTS = 1 << 20  # of the embedding, read at a time by each thread
_THREADS = 4


class Tensor(Protocol):
    """A stored array in our orientation that is read where it is sliced."""

    shape: tuple[int, ...]

    def __getitem__(self, index: tuple[slice, ...], /) -> Any: ...


class Source(Protocol):
    """One checkpoint. ``layer`` is ``None`` for the leaves that are not stacked.

    Attributes:
      path: for messages.
      shapes: every stored tensor by name.
      ignored: regex of names that may be there and are not ours.
      heads: names under which a copy of the embedding may be stored as the output head.
    """

    path: str
    shapes: dict[str, tuple[int, ...]]
    ignored: str
    heads: tuple[str, ...]

    def entry(self, leaf: str, layer: int | None) -> tuple[str, tuple[int, ...]]:
        """Name and shape with which it has to be stored."""
        ...

    def tensor(self, leaf: str, layer: int | None) -> Tensor: ...

    def table(self, name: str) -> Tensor:
        """The stored ``[V, D]`` matrix called ``name``."""
        ...


def build(
    source: Source,
    spec: Spec,
    dtype: Any,
    shardings: Any = None,
    added: Callable[[], Sequence[str] | None] = lambda: None,
) -> Any:
    """The parameter tree of ``spec`` with the values of ``source``.

    Args:
      added: see ``check``.

    Raises:
      UserError: a tensor is missing, unknown, of another shape, or holds NaN or infinity.
    """
    expected = decoder.abstract_params(spec, jnp.dtype(dtype))
    check(source, spec, added)
    if shardings is None:
        one = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        shardings = jax.tree.map(lambda _: one, expected)
    layers = {
        leaf: _leaf(source, leaf, want, shardings["layers"][leaf])
        for leaf, want in tqdm.tqdm(expected["layers"].items(), "weights", disable=None)
    }
    embed = _leaf(source, EMBED, expected[EMBED], shardings[EMBED])
    norm = _leaf(source, FINAL_NORM, expected[FINAL_NORM], shardings[FINAL_NORM])
    return {EMBED: embed, FINAL_NORM: norm, "layers": layers}


def check(source: Source, spec: Spec, added: Callable[[], Sequence[str] | None]) -> None:
    """Every tensor is there with its shape, and nothing else that matters is.

    Args:
      added: asked where the embedding has more rows than the model has tokens: which further tokens
        the tokenizer beside the weights has; ``None`` = there is none beside them.

    Raises:
      UserError: names the tensor, the shape found and the shape expected.
    """
    heads, ignored = check_shapes(source, spec)
    _check_rows(source, spec, source.shapes[source.entry(EMBED, None)[0]][0], added)
    for head in heads:
        if not _same_rows(source.table(head), source.tensor(EMBED, None)):
            raise UserError(
                f"{source.path}: tensor {head} differs from the embedding: a head trained apart. "
                "Gemma's output head is the embedding itself, so these weights cannot be used here "
                "in any way. Train again from the published weights with the head tied, without "
                "modules_to_save."
            )
    if ignored or heads:
        names = ", ".join(dict.fromkeys(re.sub(r"\d+", "*", name) for name in heads + ignored))
        logging.info("%s: ignored %d tensors: %s", source.path, len(heads + ignored), names)


def check_shapes(source: Source, spec: Spec) -> tuple[list[str], list[str]]:
    """Names and shapes of all tensors, but for the number of rows of the embedding.

    Returns:
      The names of what may be copies of the embedding, and of what is ignored.

    Raises:
      UserError: as ``check``.
    """
    used = set()
    for leaf, layer in _places(spec):
        name, want = source.entry(leaf, layer)
        used.add(name)
        found = source.shapes.get(name)
        if found is None:
            raise UserError(
                f"{source.path}: tensor {name} is missing; {spec.name} needs it with shape {want}."
                f"{_likely(source, spec)}"
            )
        if 0 in found:
            raise UserError(
                f"{source.path}: tensor {name} is empty, shape {found}: saved without gathering "
                "its shards, as DeepSpeed's ZeRO-3 does by default. Save the model again with "
                "stage3_gather_16bit_weights_on_model_save, or through its zero_to_fp32.py."
            )
        if found != want and (leaf != EMBED or found[1:] != want[1:]):
            raise UserError(
                f"{source.path}: tensor {name} has shape {found}, expected {want} for {spec.name}."
                f"{_likely(source, spec)}"
            )
    rest = set(source.shapes) - used
    ignored = sorted(name for name in rest if re.search(source.ignored, name))
    heads = sorted(rest.intersection(source.heads))
    unknown = sorted(rest.difference(ignored, heads))
    if unknown:
        raise UserError(
            f"{source.path}: tensor {unknown[0]} (and {len(unknown) - 1} more) is not part of "
            f"{spec.name}.{_likely(source, spec)}"
        )
    return heads, ignored


def fitting(source: Source, spec: Spec) -> int:
    """How many tensors are there with the shape that a model needs."""
    entries = [source.entry(leaf, layer) for leaf, layer in _places(spec)]
    return sum(source.shapes.get(name) == shape for name, shape in entries)


def _places(spec: Spec) -> list[tuple[str, int | None]]:
    """Every leaf, of each layer where it is stacked."""
    leaves = decoder.abstract_params(spec, jnp.dtype("float32"))["layers"]
    stacked = [(leaf, layer) for leaf in leaves for layer in range(spec.num_layers)]
    return [(EMBED, None), (FINAL_NORM, None), *stacked]


def _check_rows(
    source: Source, spec: Spec, rows: int, added: Callable[[], Sequence[str] | None]
) -> None:
    """The rows of the embedding: as published, or more that no token has."""
    if rows < spec.tokens:
        raise UserError(
            f"{source.path}: the embedding has {rows} rows, expected {spec.tokens} for "
            f"{spec.name}: the vocabulary was cut. Use the weights as published."
        )
    names = added() if rows > spec.tokens else []
    if names:
        shown = ", ".join(map(repr, names[:4])) + (", …" if len(names) > 4 else "")
        raise UserError(
            f"{source.path}: the vocabulary was extended by {len(names)} tokens ({shown}), which "
            f"{spec.name} has no place for. {_EXTENDED}"
        )
    if rows in (spec.tokens, spec.vocab, OTHER_ROWS.get(spec.vocab)):
        return
    more = rows - spec.tokens
    if names is None:
        raise UserError(
            f"{source.path}: the embedding has {rows} rows, {more} more than {spec.name} has "
            "tokens: it was padded, or extended by new tokens. Put the tokenizer.json that was "
            "saved with it beside it: rows that it has no tokens for are left out. Rows of new "
            f"tokens cannot be used: {_EXTENDED[0].lower()}{_EXTENDED[1:]}"
        )
    print(
        f"{source.path}: {more} rows of the embedding are left out: the tokenizer beside it has "
        "no tokens for them.",
        file=sys.stderr,
    )


def _likely(source: Source, spec: Spec) -> str:
    """``" These look like gemma3_1b weights; …"`` where the embedding width says so."""
    found = source.shapes.get(source.entry(EMBED, None)[0], (0, 0))
    if found[1:] == (spec.embed,):
        return " The weights are incomplete or altered; fetch them again."
    names = [s.name for s in SPECS.values() if found[1:] == (s.embed,)]
    if not names:
        return " Set config.model.name to the model these weights are of."
    return f" These look like {names[0]} weights; set config.model.name = {names[0]!r}."


def _same_rows(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    return all(
        np.array_equal(np.asarray(one[rows, :]), np.asarray(other[rows, :]))
        for rows in _row_chunks(one.shape)
    )


def _leaf(source: Source, leaf: str, want: jax.ShapeDtypeStruct, sharding: Any) -> jax.Array:
    """One global array; host memory holds the shards of this process's devices, once each."""
    indices = sharding.addressable_devices_indices_map(want.shape).values()
    shards = {
        bounds: np.zeros([stop - start for start, stop in bounds], want.dtype)
        for bounds in {_bounds(index, want.shape) for index in indices}
    }

    def fill(part: tuple[slice, Tensor, str]) -> None:
        rows, tensor, name = part
        for bounds, shard in shards.items():
            start, stop = max(rows.start, bounds[0][0]), min(rows.stop, bounds[0][1])
            if start >= stop:
                continue
            rest = tuple(slice(*bound) for bound in bounds[1:])
            stacked = len(tensor.shape) < len(want.shape)
            values = np.asarray(tensor[rest if stacked else (slice(start, stop), *rest)])
            _check_finite(source, name, values)
            shard[start - bounds[0][0] : stop - bounds[0][0]] = values

    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        for _ in pool.map(fill, _parts(source, leaf, want.shape)):
            pass
    array = jax.make_array_from_callback(
        want.shape, sharding, lambda index: shards[_bounds(index, want.shape)]
    )
    return jax.block_until_ready(array)  # the host copy can go before the next leaf comes


def _check_finite(source: Source, name: str, values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise UserError(
            f"{source.path}: tensor {name} holds NaN or infinity: the training that made it went "
            "wrong, or the file is damaged. Use an earlier checkpoint, or download it again."
        )


def _parts(
    source: Source, leaf: str, shape: tuple[int, ...]
) -> Iterator[tuple[slice, Tensor, str]]:
    """What is read at a time, a layer or some rows of the embedding, and the stored name."""
    if leaf in (EMBED, FINAL_NORM):
        tensor = source.tensor(leaf, None)
        stored = tensor.shape[0]
        if stored != shape[0]:  # rows that no token has are left out
            stored = min(stored, TOKENS.get(shape[0], shape[0]))
        for rows in _row_chunks((stored, *shape[1:])):
            yield rows, tensor, source.entry(leaf, None)[0]
    else:
        for layer in range(shape[0]):
            yield slice(layer, layer + 1), source.tensor(leaf, layer), source.entry(leaf, layer)[0]


def _row_chunks(shape: tuple[int, ...]) -> Iterator[slice]:
    step = max(1, _CHUNK_ELEMENTS // int(np.prod(shape[1:], dtype=np.int64)))
    for start in range(0, shape[0], step):
        yield slice(start, min(start + step, shape[0]))


def _bounds(index: Any, shape: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    return tuple(s.indices(n)[:2] for s, n in zip(index, shape, strict=True))
