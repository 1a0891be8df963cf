"""Is what was written the model that was tuned? It is read back and asked the same.

Computed in float32 on both sides, so that what differs is the file: a tensor in another place, or
the rounding of a format with fewer bits, which is measured and limited.
"""

import dataclasses
import functools
import itertools
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from sft.data.chat import encoding
from sft.data.conversation import Conversation, Turn
from sft.data.tokenizer.sentencepiece import Tokenizer
from sft.errors import UserError
from sft.export import chat_template
from sft.export.tuned import Tuned
from sft.model import decoder
from sft.model.specs import Spec
from sft.types import Tree

_PLAIN = (
    "The capital of France is",
    "東京都千代田区丸の内１丁目は、",
    "def f(x):\n    if x:\n\n        return [\n            x ** 2,  # square\n        ]\n",
    "Der schnelle braune Fuchs springt über den faulen Hund. " * 6,
)
# And some that tokenizers differ on.
TEXTS = (
    *_PLAIN,
    "x" + " " * 40 + "y" + "\n" * 35 + "z" + "\t" * 33 + "w",
    "<table>\n  <tr><td>1</td> <td> 2 </td></tr>\n</table>\r\n<b>y</b>",
    "👩‍💻 👨‍👩‍👧‍👦 🇯🇵🇧🇷 ☎︎ 𝔹 𝟙 ⟨x⟩ a\u00a0b\u3000c\u200be\x1ff",
    " שלום עולם  مرحبا بالعالم   မင်္ဂလာပါ ",
)
_LENGTH = 128  # positions of a prompt at most
_ROUNDINGS = 4  # of a weight: its own, the update's, the scale's, and those of sums


@dataclasses.dataclass(frozen=True)
class Difference:
    """Between the logits of two models, over all positions of the prompts.

    Attributes:
      largest, mean: of the absolute differences.
      kl: mean Kullback-Leibler divergence of the first's next-token distribution from the second's,
        in nats.
      agreement: share of positions with the same most likely token.
    """

    largest: float
    mean: float
    kl: float
    agreement: float


# What a format may do. float32: measured parity of runtimes is 4e-4 at most on such prompts, and
# our own on both sides is less. The others: rounding moves every weight by half a unit in its last
# place; mean KL measured on the 270M is 1e-4 to 2e-3 (bfloat16), 1e-5 (float16), 1e-2 (q8_0).
LIMITS = {
    "float32": Difference(1e-3, 5e-5, 1e-8, 1.0),
    "float16": Difference(float("inf"), float("inf"), 1e-3, 0.95),
    "bfloat16": Difference(float("inf"), float("inf"), 2e-2, 0.9),
    "q8_0": Difference(float("inf"), float("inf"), 5e-2, 0.85),
}


def prompts(tuned: Tuned) -> list[list[int]]:
    """Token ids: plain text, code, a chat prompt, and random pieces."""
    tok = tuned.tokenizer
    found = [[tok.bos_id, *tok.encode(text)] for text in _PLAIN]
    said = Conversation(turns=(Turn("user", "Wie spät ist es?"),), system=None, source="verify")
    format_ = tuned.config.data.chat or tuned.spec.family
    found.append([int(i) for i in encoding.encode_prompt(said, tok, format_)])
    random = np.random.default_rng(0).integers(4, tok.vocab_size, 64)
    found.append([tok.bos_id, *map(int, random)])
    return [ids[:_LENGTH] for ids in found]


def differences(tuned: Tuned, params: Tree, adapters: Tree, scale: float) -> Difference:
    """Another model against the tuned one, on the prompts.

    Args:
      params, adapters, scale: of the other, as in ``decoder.forward``.
    """
    options = dataclasses.replace(tuned.options, dtype=jnp.dtype("float32"), mesh=None)
    other = dataclasses.replace(options, lora_scale=scale)
    found = []
    for ids in prompts(tuned):  # one at a time: the logits of a vocabulary are large
        tokens_1xL = np.zeros((1, _LENGTH), np.int32)
        tokens_1xL[0, : len(ids)] = ids
        mine, theirs = (tuned.params, tuned.adapters), (params, adapters)
        values = _compare(tuned.spec, options, other, *mine, *theirs, tokens_1xL, len(ids))
        found.append([value[: len(ids)] for value in jax.device_get(values)])
    largest, mean, kl, same = (np.concatenate(column) for column in zip(*found, strict=True))
    return Difference(
        float(largest.max()), float(mean.mean()), float(kl.mean()), float(same.mean())
    )


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _compare(
    spec: Spec,
    options: decoder.Options,
    other: decoder.Options,
    params: Tree,
    adapters: Tree,
    other_params: Tree,
    other_adapters: Tree,
    tokens_1xL: jax.Array,
    length: jax.Array,
) -> tuple[jax.Array, ...]:
    """For each position: largest and mean difference of the logits, KL, and the same choice."""
    places = jnp.arange(tokens_1xL.shape[1])[None]
    segments = (places < length).astype(jnp.int32)

    def logits_LxV(how: decoder.Options, weights: Tree, tuned: Tree) -> jax.Array:
        hidden = decoder.forward(spec, weights, tuned, tokens_1xL, places, segments, how)
        return decoder.logits(spec, weights, hidden[0])

    a_LxV = logits_LxV(options, params, adapters)
    b_LxV = logits_LxV(other, other_params, other_adapters)
    gap_LxV = jnp.abs(a_LxV - b_LxV)
    log_p_LxV, log_q_LxV = jax.nn.log_softmax(a_LxV), jax.nn.log_softmax(b_LxV)
    # The same sum as of p log(p / q), for q sums to 1; without the rounding that hides a small one.
    # p expm1(-ratio) is q - p, and is taken so where the exponential could overflow.
    p_LxV, q_LxV = jnp.exp(log_p_LxV), jnp.exp(log_q_LxV)
    ratio_LxV = log_p_LxV - log_q_LxV
    near_LxV = p_LxV * (ratio_LxV + jnp.expm1(-jnp.maximum(ratio_LxV, -1)))
    far_LxV = p_LxV * ratio_LxV + (q_LxV - p_LxV)
    kl_L = jnp.sum(jnp.where(ratio_LxV < -1, far_LxV, near_LxV), axis=-1)
    same_L = (a_LxV.argmax(-1) == b_LxV.argmax(-1)).astype(jnp.float32)
    return gap_LxV.max(-1), gap_LxV.mean(-1), kl_L, same_L


def rounding(tuned: Tuned) -> float:
    """The largest difference of logits that moving every weight by one unit in the last place of
    float32 makes, up or down: no comparison of an ill-conditioned model can ask for less."""
    keys = iter(jax.random.split(jax.random.key(0), len(jax.tree.leaves(tuned.params))))

    @jax.jit
    def moved(weight: jax.Array, key: jax.Array) -> jax.Array:
        ends = jnp.where(jax.random.bernoulli(key, shape=weight.shape), jnp.inf, -jnp.inf)
        return jnp.nextafter(weight.astype(jnp.float32), ends)

    params = jax.tree.map(lambda weight: moved(weight, next(keys)), tuned.params)
    return differences(tuned, params, tuned.adapters, tuned.scale).largest


def check(tuned: Tuned, found: Difference, dtype: str, what: str) -> None:
    """Refuses an export that is not the model.

    Raises:
      UserError: it differs by more than its format explains.
    """
    if dtype in ("float16", "q8_0") and not math.isfinite(found.largest):
        raise UserError(
            f"{what}: read back, its logits are not finite: {dtype} cannot hold these weights. "
            "Nothing was published. Choose --dtype=bfloat16 or float32."
        )
    limit = LIMITS[dtype]
    if found.largest > limit.largest:  # one position may be ill-conditioned; the means say more
        largest = max(limit.largest, _ROUNDINGS * rounding(tuned))
        limit = dataclasses.replace(limit, largest=largest)
    within = (
        found.largest <= limit.largest
        and found.mean <= limit.mean
        and found.kl <= limit.kl
        and found.agreement >= limit.agreement
    )
    if not within:
        raise UserError(
            f"{what}: read back, it is not the model that was tuned: {said(found)}; {dtype} "
            f"allows {said(limit)}. Nothing was published. This is a bug, or a damaged disk."
        )


def check_tokenizer(tokenizer: Tokenizer, file: Path) -> None:
    """``tokenizer.json`` in the library that reads it: the same ids, and the same text of them.

    Raises:
      UserError: another result; names the text.
    """
    import tokenizers

    written = tokenizers.Tokenizer.from_file(str(file))
    for text in TEXTS:
        ids = tokenizer.encode(text)
        found = written.encode(text).ids
        if found != [tokenizer.bos_id, *ids] or written.decode(ids) != tokenizer.decode(ids):
            raise UserError(
                f"{file}: cuts {text!r} into {found}, the tokenizer of the run into {ids}. Nothing "
                "was published. This is a bug."
            )


def check_chat(tuned: Tuned, file: Path) -> None:
    """The chat template through ``tokenizer.json``: the ids of training.

    Raises:
      UserError: other ids; names the conversation.
    """
    import tokenizers

    written = tokenizers.Tokenizer.from_file(str(file))
    for system, texts in itertools.product((None, "Be brief."), (TEXTS[:1], TEXTS[1:4])):
        turns = [Turn(("user", "model")[i % 2], text) for i, text in enumerate(texts)]
        turns[0] = Turn("user", tuned.framing.prompt(texts[0]))
        asked = Conversation(tuple(turns), system or tuned.framing.system or None, "verify")
        ids = encoding.encode_prompt(asked, tuned.tokenizer, tuned.format_name).tolist()
        messages = [{"role": "system", "content": system}] if system else []
        messages += [
            {"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)
        ]
        sent = chat_template.render(tuned.chat_template, messages, add_generation_prompt=True)
        if (found := written.encode(sent, add_special_tokens=False).ids) != ids:
            raise UserError(
                f"{file}: the chat template gives {found} for {messages}, training had {ids}. "
                "Nothing was published. This is a bug."
            )


def check_learnt(found: Difference, what: str) -> None:
    """Refuses to publish the base model under another name, or a model that diverged.

    Args:
      found: the base model against the tuned one.

    Raises:
      UserError: the tuned model gives the base model's logits, or none that are numbers.
    """
    if not math.isfinite(found.largest):
        raise UserError(
            f"{what}: its logits, or the base model's, are not finite: the run has diverged, or "
            "the weights are damaged. Choose another --checkpoint, or train again with a lower "
            "config.optim.learning_rate."
        )
    if found.largest < 1e-4:
        raise UserError(
            f"{what}: its logits are the base model's (largest difference {found.largest:.1e}): "
            "nothing has been learnt. Choose another --checkpoint, or train."
        )


def said(found: Difference) -> str:
    """In words, for the terminal and the card."""
    return (
        f"logits differ by {found.largest:.1e} at most and {found.mean:.1e} on average, mean KL "
        f"{found.kl:.1e} nats, the same choice at {100 * found.agreement:.1f} % of positions"
    )
