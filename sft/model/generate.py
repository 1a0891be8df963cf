"""Batched generation: a row whose answer has ended takes the next prompt.

So nobody waits for the longest answer of a batch, prompts are read in small groups with little
padding, and many answers are written at once. An answer depends on its prompt alone, and on the
prompt's place in the list where it is sampled.
"""

from collections import deque
from collections.abc import Callable, Sequence

import jax
import numpy as np

from sft.model import decoder, lora, slots
from sft.model.sampling import Sampling, choose
from sft.model.specs import Spec
from sft.types import Tree

__all__ = ["Sampling", "choose", "generate"]

# Prompt positions read at a time: enough for matrix products to be fast, little enough for
# attention's logits and for rows not to wait long.
READ = 2048


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
    on_batch: Callable[[int], object] = lambda done: None,
) -> list[list[int]]:
    """Answers to all prompts, in their order, without stop tokens.

    Few shapes are compiled: one for writing, and one for each length to which groups of prompts
    are padded.

    Args:
      prompts: int32 ids of each prompt.
      batch_size: rows, that is answers written at the same time.
      bucket: prompts are padded to multiples of it, long ones to coarser steps.
      on_batch: called with the number of answers that have ended since the last call.
    """
    recipe = slots.Recipe(spec, options, sampling, seed)
    adapters = lora.with_gains(adapters, params["layers"], options.lora_scale)
    model = recipe, _cast(params, options.dtype), adapters
    lengths = [_padded(len(prompt), bucket) for prompt in prompts]
    # Longest first: what does not fit into memory fails at once, and the last rows are quick ones.
    queue = deque(sorted(range(len(prompts)), key=lambda i: -len(prompts[i])))
    state = slots.start(recipe, batch_size, max(lengths, default=1) + sampling.max_new_tokens)
    free, row_of = list(range(batch_size)), {}
    answers: list[list[int]] = [[] for _ in prompts]
    while queue or row_of:
        wanted = batch_size
        while queue:
            size = _group(lengths[queue[0]], batch_size)
            wanted = min(size, len(queue))
            if len(free) < wanted:
                break
            chosen = [queue.popleft() for _ in range(wanted)]
            row_of |= {i: free.pop() for i in chosen}
            # A short group is filled with its last prompt, in the same row again.
            filled = chosen + chosen[-1:] * (size - wanted)
            state = _bring(model, state, prompts, filled, row_of, lengths[chosen[0]])
            wanted = batch_size
        state = slots.advance(*model, state, np.int32(batch_size - wanted))
        done = _ended(state, row_of, sampling.stop_ids)
        for i, answer in done.items():
            answers[i] = answer
            free.append(row_of.pop(i))
        on_batch(len(done))
    return answers


def _padded(length: int, bucket: int) -> int:
    """A multiple of ``bucket``, or of an eighth of the power of two below: few shapes, and at most
    an eighth of padding where prompts are long."""
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


def _ended(
    state: slots.Slots, row_of: dict[int, int], stop_ids: tuple[int, ...]
) -> dict[int, list[int]]:
    """The answers that have ended, by prompt."""
    live_B, count_B = np.asarray(state.live_B), np.asarray(state.count_B)
    answers_BxT = np.asarray(state.answers_BxT)
    ended = {}
    for i, row in row_of.items():
        if not live_B[row]:
            ids = answers_BxT[row, : count_B[row]].tolist()
            ended[i] = ids[:-1] if ids[-1] in stop_ids else ids
    return ended


def _cast(params: Tree, dtype) -> Tree:
    """Float32 masters in the dtype of the activations, once and not for each token. Norms stay:
    they are applied in float32."""

    def leaf(path, x: jax.Array) -> jax.Array:
        return x if "norm" in path[-1].key else x.astype(dtype)

    return jax.tree_util.tree_map_with_path(leaf, params)
