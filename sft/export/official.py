"""Weights and adapters as the ``gemma`` package keeps them: Orbax, in its nested layout.

    gm.ckpts.load_params("merged")                                       the tuned model
    peft.merge_params(gm.ckpts.load_params(BASE), restored "adapters")   for gm.nn.LoRA(rank=…)

``gm.nn.LoRA`` has one rank for all projections, no alpha, and one A for keys and values, as for
gate and up. Ours have an A each. Both lie beside each other in theirs, at twice the rank, and the B
of one is zero where the A is the other's: so it is exact. The scale is multiplied into B.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sft.export.tuned import Tuned
from sft.model.specs import Spec
from sft.model.weights.orbax import NAMES
from sft.types import Tree

MERGED, ADAPTERS = "merged", "adapters"
# Where gm.nn.LoRA has the adapters of one or two of our projections.
_PLACES = {
    ("q",): "attn/q_einsum/_LoRAEinsum_0/lora",
    ("k", "v"): "attn/kv_einsum/_LoRAEinsum_0/lora",
    ("o",): "attn/attn_vec_einsum/_LoRAEinsum_0/lora",
    ("gate", "up"): "mlp/_LoRAEinsum_gating_einsum/lora",
    ("down",): "mlp/_LoRAEinsum_linear/lora",
}
_PAIRS = {"k_SxKxHxD": "v_SxKxHxD", "gate_SxDxF": "up_SxDxF"}


def write(tuned: Tuned, folder: Path, dtype: str) -> None:
    """``merged``, and ``adapters`` where ``gm.nn.LoRA`` knows their kind (no DoRA)."""
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder.absolute() / MERGED, merged(tuned, dtype))
        if tuned.has_plain_adapters:
            made = adapters(tuned.adapters, tuned.spec, tuned.scale)
            checkpointer.save(folder.absolute() / ADAPTERS, made)
    for file in folder.glob("*/commit_success.txt"):  # in which Orbax names the place on this disk
        file.write_text("Checkpoint commit was successful")


def merged(tuned: Tuned, dtype: str) -> Tree:
    """The parameters of ``gemma``'s model, nested."""
    spec, tree = tuned.spec, {}
    waiting: dict[tuple[str, int | None], np.ndarray] = {}
    for leaf, layer, values in tuned.leaves(dtype):
        waiting[leaf, layer] = _turned(leaf, values, spec)
    for (leaf, layer), values in waiting.items():
        if leaf in _PAIRS.values():
            continue
        if leaf in _PAIRS:
            values = np.stack([values, waiting[_PAIRS[leaf], layer]])
        name = NAMES[leaf] if layer is None else f"layer_{layer}/{NAMES[leaf]}"
        _put(tree, name, values)
    return tree


def _turned(leaf: str, values: np.ndarray, spec: Spec) -> np.ndarray:
    if leaf in ("q_SxNxHxD", "k_SxKxHxD", "v_SxKxHxD"):
        return values.transpose(0, 2, 1)
    if leaf in ("gate_SxDxF", "up_SxDxF") and spec.name != "gemma2_2b":  # it alone has [D, F]
        return values.T
    return values


def rank(adapters: Tree) -> int:
    """That ``gm.nn.LoRA`` needs: twice ours where two projections share an A there."""
    own = next(iter(adapters.values()))["A"].shape[-1]
    return own * max(sum(name in adapters for name in names) for names in _PLACES)


def adapters(ours: Tree, spec: Spec, scale: float) -> Tree:
    """Float32 ``{"layer_0": {"attn": {"q_einsum": {…: {"lora": {"a", "b"}}}}}}``, all layers.

    Projections without an adapter get zeros, since ``gm.nn.LoRA`` has one on each.
    """
    from sft.model import lora

    tree: Tree = {}
    width, shapes = rank(ours), lora.shapes(spec)
    for names, place in _PLACES.items():
        inputs, outputs = shapes[names[0]]
        for layer in range(spec.num_layers):
            pairs = [
                (ours[n]["A"][layer], ours[n]["B"][layer]) if n in ours else None for n in names
            ]
            a, b = _joined(pairs, inputs, outputs, width, scale)
            _put(tree, f"layer_{layer}/{place}", {"a": a, "b": b if len(names) > 1 else b[:, 0]})
    return tree


def _joined(
    pairs: Sequence[Any],
    inputs: tuple[int, ...],
    outputs: tuple[int, ...],
    width: int,
    scale: float,
) -> tuple[np.ndarray, np.ndarray]:
    """``a [*in, width]`` and ``b [width, len(pairs), *out]`` of projections with one input."""
    a = np.zeros((*inputs, width), np.float32)
    b = np.zeros((width, len(pairs), *outputs), np.float32)
    start = 0
    for index, pair in enumerate(pairs):
        if pair is None:
            continue
        end = start + pair[0].shape[-1]
        a[..., start:end] = pair[0]
        b[start:end, index] = scale * np.asarray(pair[1])
        start = end
    return a, b


def _put(tree: Tree, name: str, value: Any) -> None:
    *parents, last = name.split("/")
    for parent in parents:
        tree = tree.setdefault(parent, {})
    tree[last] = value
