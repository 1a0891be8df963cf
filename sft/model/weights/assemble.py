"""From a source of named tensors to our parameter tree, on its devices, one leaf at a time.

Once for all formats; what a source has to know is in ``source``.
"""

import concurrent.futures
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from sft.errors import UserError
from sft.model import decoder
from sft.model.specs import TOKENS, Spec
from sft.model.weights import checks
from sft.model.weights.source import EMBED, FINAL_NORM, Source, Tensor, row_chunks
from sft.run.progress import Progress

_THREADS = 4


def build(
    source: Source,
    spec: Spec,
    dtype: Any,
    shardings: Any = None,
    added: Callable[[], Sequence[str] | None] = lambda: None,
) -> Any:
    """The parameter tree of ``spec`` with the values of ``source``.

    Args:
      added: see ``checks.check``.

    Raises:
      UserError: a tensor is missing, unknown, of another shape, or holds NaN or infinity.
    """
    expected = decoder.abstract_params(spec, jnp.dtype(dtype))
    checks.check(source, spec, added)
    if shardings is None:
        one = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        shardings = jax.tree.map(lambda _: one, expected)
    layers = {}
    with Progress(len(expected["layers"]), "weights", "tensor", delay=2) as progress:
        for leaf, want in expected["layers"].items():
            layers[leaf] = _leaf(source, leaf, want, shardings["layers"][leaf])
            progress.update()
    embed = _leaf(source, EMBED, expected[EMBED], shardings[EMBED])
    norm = _leaf(source, FINAL_NORM, expected[FINAL_NORM], shardings[FINAL_NORM])
    return {EMBED: embed, FINAL_NORM: norm, "layers": layers}


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
    if values.dtype.itemsize == 2:  # by the bits of the exponent: ten times sooner
        exponent = np.uint16(0x7F80 if values.dtype == ml_dtypes.bfloat16 else 0x7C00)
        finite = ((values.view(np.uint16) & exponent) != exponent).all()
    else:
        finite = np.isfinite(values).all()
    if not finite:
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
        for rows in row_chunks((stored, *shape[1:])):
            yield rows, tensor, source.entry(leaf, None)[0]
    else:
        for layer in range(shape[0]):
            yield slice(layer, layer + 1), source.tensor(leaf, layer), source.entry(leaf, layer)[0]


def _bounds(index: Any, shape: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    return tuple(s.indices(n)[:2] for s, n in zip(index, shape, strict=True))
