"""The model table: one row per Gemma size. No arrays, no I/O.

Sources: ``gemma.gm.nn._gemma`` 4.0.1 and the ``config.json`` files published on Hugging Face.
"""

import dataclasses
import difflib

from sft.errors import UserError


@dataclasses.dataclass(frozen=True)
class LayerKind:
    """What differs between the layers of one repeating pattern.

    Attributes:
      window: keys a query sees, itself included; ``None`` for all earlier keys.
      rope_base: RoPE base frequency.
      rope_scale: positions are divided by this before RoPE.
    """

    window: int | None
    rope_base: float = 10_000.0
    rope_scale: float = 1.0


@dataclasses.dataclass(frozen=True)
class Spec:
    """Sizes and attention pattern of one model. Letters as in ``sft.types``.

    Attributes:
      family: ``gemma2`` or ``gemma3``; chooses the chat format and the checkpoint names.
      pattern: layer kinds, repeated (and cut) to ``num_layers``.
      query_scale: what queries are multiplied by before the dot product.
      qk_norm: RMSNorm on queries and keys (Gemma 3).
      attn_softcap: tanh cap on attention logits (Gemma 2), or ``None``.
      final_softcap: tanh cap on output logits (Gemma 2), or ``None``.
      has_images: whether it is published with an image tower, inside which this is the text model.
    """

    name: str
    family: str
    num_layers: int
    embed: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    pattern: tuple[LayerKind, ...]
    query_scale: float
    qk_norm: bool
    attn_softcap: float | None = None
    final_softcap: float | None = None
    has_images: bool = False

    @property
    def tokens(self) -> int:
        """How many the published tokenizer has; the embedding of Gemma 2 is padded beyond."""
        return TOKENS.get(self.vocab, self.vocab)

    @property
    def kinds(self) -> tuple[LayerKind, ...]:
        """Those that differ, in the order in which they first occur."""
        return tuple(dict.fromkeys(self.pattern))

    @property
    def windows(self) -> tuple[int | None, ...]:
        """Of each kind."""
        return tuple(kind.window for kind in self.kinds)

    @property
    def positions(self) -> int:
        """The longest text that the published model is for."""
        return 131_072 if self.has_images else CONTEXT[self.family]

    @property
    def layers(self) -> tuple[LayerKind, ...]:
        """The kind of each layer, first to last."""
        return tuple(self.pattern[i % len(self.pattern)] for i in range(self.num_layers))


def gemma2(name: str, *, embed: int, heads: int, query_scale: float, **sizes) -> Spec:
    pattern = (LayerKind(window=4096), LayerKind(window=None))
    return Spec(
        name=name,
        family="gemma2",
        embed=embed,
        heads=heads,
        vocab=256_128,
        pattern=pattern,
        query_scale=query_scale,
        qk_norm=False,
        attn_softcap=50.0,
        final_softcap=30.0,
        **sizes,
    )


def gemma3(
    name: str,
    *,
    window: int,
    query_scale: float = 256**-0.5,
    global_scale: float = 1.0,
    **sizes,
) -> Spec:
    local = LayerKind(window=window)
    whole = LayerKind(window=None, rope_base=1_000_000.0, rope_scale=global_scale)
    return Spec(
        name=name,
        family="gemma3",
        vocab=262_144,
        pattern=(local,) * 5 + (whole,),
        query_scale=query_scale,
        qk_norm=True,
        **sizes,
    )


# fmt: off
_ROWS = (
    gemma2("gemma2_2b", num_layers=26, embed=2304, hidden=9216,
           heads=8, kv_heads=4, head_dim=256, query_scale=256**-0.5),
    gemma2("gemma2_9b", num_layers=42, embed=3584, hidden=14336,
           heads=16, kv_heads=8, head_dim=256, query_scale=256**-0.5),
    gemma2("gemma2_27b", num_layers=46, embed=4608, hidden=36864,
           heads=32, kv_heads=16, head_dim=128, query_scale=(4608 / 32) ** -0.5),
    gemma3("gemma3_270m", num_layers=18, embed=640, hidden=2048,
           heads=4, kv_heads=1, head_dim=256, window=512),
    gemma3("gemma3_1b", num_layers=26, embed=1152, hidden=6912,
           heads=4, kv_heads=1, head_dim=256, window=512),
    gemma3("gemma3_4b", num_layers=34, embed=2560, hidden=10240,
           heads=8, kv_heads=4, head_dim=256, window=1024, has_images=True, global_scale=8.0),
    gemma3("gemma3_12b", num_layers=48, embed=3840, hidden=15360,
           heads=16, kv_heads=8, head_dim=256, window=1024, has_images=True, global_scale=8.0),
    gemma3("gemma3_27b", num_layers=62, embed=5376, hidden=21504,
           heads=32, kv_heads=16, head_dim=128, window=1024, has_images=True, global_scale=8.0,
           query_scale=(5376 / 32) ** -0.5),
)
# fmt: on

TOKENS = {256_128: 256_000}  # rows of the embedding: tokens, where there are fewer
CONTEXT = {"gemma2": 8192, "gemma3": 32_768}  # max_position_embeddings of the smallest published
SPECS: dict[str, Spec] = {spec.name: spec for spec in _ROWS}


def get(name: str) -> Spec:
    """The row called ``name``.

    Raises:
      UserError: no such row; names the nearest one.
    """
    if name in SPECS:
        return SPECS[name]
    if not name:
        raise UserError(
            "config.model.name is not set, and there are no weights to find it from. Set it to one "
            f"of {', '.join(SPECS)}."
        )
    near = difflib.get_close_matches(name, SPECS, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise UserError(f"model.name: no model {name!r}.{hint} Known: {', '.join(SPECS)}.")


def tiny(family: str = "gemma3", **changes) -> Spec:
    """A model of a few thousand parameters with every feature of its family, for tests.

    Key/value heads differ from query heads, the head width differs from ``embed / heads``, the
    window is short and both layer kinds occur.
    """
    sizes = {"num_layers": 4, "embed": 32, "hidden": 48, "heads": 4, "kv_heads": 2, "head_dim": 16}
    if family == "gemma2":
        spec = gemma2("tiny_gemma2", query_scale=16**-0.5, **sizes)
        pattern = (LayerKind(window=8), LayerKind(window=None))
    else:
        spec = gemma3("tiny_gemma3", window=8, query_scale=16**-0.5, **sizes)
        pattern = (
            LayerKind(window=8),
            LayerKind(window=8),
            LayerKind(window=None, rope_base=1_000_000.0, rope_scale=8.0),
        )
    return dataclasses.replace(spec, vocab=256, pattern=pattern, **changes)
