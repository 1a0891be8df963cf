"""Batched generation: a row whose answer has ended takes the next prompt.

So nobody waits for the longest answer of a batch, prompts are read in small groups with little
padding, and many answers are written at once. An answer depends on its prompt alone, and on the
prompt's place in the list where it is sampled.
"""

from collections import deque
from collections.abc import Callable, Sequence

import jax
import numpy as np

from sft.model import decoder, lora
from sft.model.decode import slots
from sft.model.decode.sampling import Sampling, choose
from sft.model.specs import Spec
from sft.types import Tree

__all__ = ["Sampling", "choose", "generate"]

# Prompt positions read at a time: enough for matrix products to be fast, little enough for
# attention's logits and for rows not to wait long.
READ = 2048
LOOK = 4  # tokens between two looks at what was written, where somebody decides by it


def generate(
    spec: Spec,
    options: decoder.Options,
    sampling: Sampling,
    params: Tree,
    adapters: Tree | None,
    prompts: Sequence[np.ndarray],
    *,
    batch_size: int,
    seed: int = 0,
    bucket: int = 32,
    is_done: Callable[[list[int]], bool] | None = None,
    on_batch: Callable[[int], object] = lambda done: None,
) -> list[list[int]]:
    """Answers to all prompts, in their order, without stop tokens.

    Few shapes are compiled: one for writing, and one for each length to which groups of prompts
    are padded.

    Args:
      prompts: int32 ids of each prompt.
      batch_size: rows, that is answers written at the same time.
      bucket: prompts are padded to multiples of it, long ones to coarser steps.
      is_done: asked of each answer so far, every few tokens; where it is true no more are added.
        The answer may be some tokens longer than it had to be.
      on_batch: called with the number of answers that have ended since the last call.
    """
    recipe = slots.Recipe(spec, options, sampling, seed)
    adapters = lora.with_gains(adapters, params["layers"], options.lora_scale)
    model = recipe, _cast(params, options.dtype), adapters
    lengths = [padded(len(prompt), bucket) for prompt in prompts]

    def group(i: int) -> int:
        return _group(lengths[i], batch_size)

    # Longest first: what does not fit into memory fails at once, and the last rows are quick ones.
    queue = deque(sorted(range(len(prompts)), key=lambda i: -len(prompts[i])))
    state = slots.start(recipe, batch_size, max(lengths, default=1) + sampling.max_new_tokens)
    row_of: dict[int, int] = {}  # of each prompt that is being answered
    free, kept_B = list(range(batch_size)), np.ones(batch_size, bool)
    answers: list[list[int]] = [[] for _ in prompts]
    while queue or row_of:
        while queue and len(free) >= (size := min(group(queue[0]), len(queue))):
            chosen = [queue.popleft() for _ in range(size)]
            row_of |= {i: free.pop() for i in chosen}
            kept_B[[row_of[i] for i in chosen]] = True
            # A short group is filled with its last prompt, in the same row again.
            filled = chosen + chosen[-1:] * (group(chosen[0]) - size)
            state = _bring(model, state, prompts, filled, row_of, lengths[chosen[0]])
        wanted = min(group(queue[0]), len(queue)) if queue else batch_size
        tokens = LOOK if is_done else sampling.max_new_tokens
        state = slots.advance(
            *model, state, kept_B, np.int32(batch_size - wanted), np.int32(tokens)
        )
        live_B, done = np.asarray(state.live_B), 0
        for i, ids in _written(state, row_of).items():
            if live_B[row_of[i]] and not (is_done and is_done(ids)):
                continue
            answers[i] = ids[:-1] if ids[-1] in sampling.stop_ids else ids
            kept_B[row_of[i]] = False
            free.append(row_of.pop(i))
            done += 1
        on_batch(done)
    return answers


def padded(length: int, bucket: int) -> int:
    """The next multiple of ``bucket`` or, if that is more, of an eighth of the power of two below:
    few shapes, and little padding."""
    step = max(bucket, 1 << max(length.bit_length() - 4, 0))
    return -(-length // step) * step


def _group(length: int, batch_size: int) -> int:
    """How many prompts are read together: at most a quarter of the rows, so that rows that end
    early do not wait for many others."""
    return max(1, min(READ // length, batch_size // 4))


def _bring(
    model: tuple,
    state: slots.Slots,
    prompts: Sequence[np.ndarray],
    chosen: list[int],
    row_of: dict[int, int],
    length: int,
) -> slots.Slots:
    """The prompts ``chosen``, padded to ``length``, read into their rows."""
    prompts_RxL = np.zeros((len(chosen), length), np.int32)
    for row, i in enumerate(chosen):
        prompts_RxL[row, : len(prompts[i])] = prompts[i]
    lengths_R = np.array([len(prompts[i]) for i in chosen], np.int32)
    recipe, params, _ = model
    hidden_RxD, fresh = slots.reader(jax.default_backend())(*model, prompts_RxL, lengths_R)
    index_R = np.array(chosen, np.int32)
    rows_R = np.array([row_of[i] for i in chosen], np.int32)
    return slots.admit(recipe, params, state, hidden_RxD, fresh, lengths_R, index_R, rows_R)


def _written(state: slots.Slots, row_of: dict[int, int]) -> dict[int, list[int]]:
    """Answers so far, by prompt, a stop token at the end included."""
    count_B, answers_BxT = np.asarray(state.count_B), np.asarray(state.answers_BxT)
    return {i: answers_BxT[row, : count_B[row]].tolist() for i, row in row_of.items()}


def _cast(params: Tree, dtype) -> Tree:
    """Float32 masters in the dtype of the activations, once and not for each token. Norms stay:
    they are applied in float32."""

    def leaf(path, x: jax.Array) -> jax.Array:
        return x if "norm" in path[-1].key else x.astype(dtype)

    return jax.tree_util.tree_map_with_path(leaf, params)
