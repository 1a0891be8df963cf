"""Are these the weights of this model? By names, shapes, rows of the embedding, and the head."""

import logging
import re
import sys
from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np

from sft.errors import UserError
from sft.model import decoder
from sft.model.specs import SPECS, Spec
from sft.model.weights.source import EMBED, FINAL_NORM, OTHER_ROWS, Source, Tensor, row_chunks

_EXTENDED = (
    "Use the weights from before the tokens were added, and write such markers as ordinary text; "
    "<unused0>, <unused1>, … in data are ordinary text too."
)


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
        for rows in row_chunks(one.shape)
    )
