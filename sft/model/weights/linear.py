"""The ``[out, in]`` matrices of Hugging Face and GGUF: how they become our leaves, and back.

No RoPE permutation is involved: all of them rotate split halves.
"""

from typing import Any

from sft.model.specs import Spec


def shape(leaf: str, spec: Spec) -> tuple[int, ...]:
    """Stored shape of a leaf (of one layer of it)."""
    D, F, H = spec.embed, spec.hidden, spec.head_dim
    if leaf.endswith("norm_SxH"):
        return (H,)
    if "norm" in leaf:
        return (D,)
    return {
        "embed_VxD": (spec.vocab, D),
        "q_SxNxHxD": (spec.heads * H, D),
        "k_SxKxHxD": (spec.kv_heads * H, D),
        "v_SxKxHxD": (spec.kv_heads * H, D),
        "o_SxNxHxD": (D, spec.heads * H),
        "gate_SxDxF": (F, D),
        "up_SxDxF": (F, D),
        "down_SxFxD": (D, F),
    }[leaf]


def orient(leaf: str, stored: Any, spec: Spec) -> Any:
    """A view of the stored array in our orientation."""
    if leaf in ("q_SxNxHxD", "k_SxKxHxD", "v_SxKxHxD"):
        return stored.reshape(-1, spec.head_dim, spec.embed)
    if leaf == "o_SxNxHxD":
        return stored.reshape(spec.embed, -1, spec.head_dim).transpose(1, 2, 0)
    if leaf in ("gate_SxDxF", "up_SxDxF", "down_SxFxD"):
        return stored.T
    return stored


def store(leaf: str, ours: Any, spec: Spec) -> Any:
    """One layer's leaf as it is stored; ``orient`` undoes it."""
    if leaf in ("q_SxNxHxD", "k_SxKxHxD", "v_SxKxHxD"):
        return ours.reshape(-1, spec.embed)
    if leaf == "o_SxNxHxD":
        return ours.transpose(2, 0, 1).reshape(spec.embed, -1)
    if leaf in ("gate_SxDxF", "up_SxDxF", "down_SxFxD"):
        return ours.T
    return ours
