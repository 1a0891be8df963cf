"""The ``gemma`` package's ``gm.text.Sampler``: batches of like length, greedy. Variant: DTYPE:ROWS.

It never cuts a list into batches, and compiles anew for each shape. So the batches are cut here,
prompts are padded to multiples of 64, and its cache is as long as the longest prompt with its
answer (its default of 4,096 slots, all of which it reads for each token, would be several times
slower).
The end-of-turn and end-of-text tokens always stop it.
"""

import dataclasses
import json
import sys
from pathlib import Path

import generation
import jax
import jax.numpy as jnp
from gemma import gm

sys.path.append(str(Path(__file__).resolve().parents[3] / "tests"))

from weight_layouts import flat_gemma, nest

from sft.model import specs, weights


@dataclasses.dataclass(frozen=True)
class Ids(gm.text.Gemma3Tokenizer):
    """The prompts are ids already, spelled in JSON."""

    def encode(self, text, *, add_bos=False, add_eos=False):
        return json.loads(text)

    def decode(self, ids):
        return ""


def main() -> None:
    task = generation.task()
    dtype, rows = task.words
    spec = specs.get("gemma3_270m")
    tree = jax.device_get(weights.load(spec, str(task.exchange / "hf"), dtype=dtype))
    longest = -(-max(map(len, task.prompts)) // 64) * 64
    sampler = gm.text.Sampler(
        model=gm.nn.Gemma3_270M(dtype=jnp.dtype(dtype)),
        params=jax.device_put(nest(flat_gemma(spec, tree, transposed=True))),
        tokenizer=Ids(),
        stop_tokens=task.stop_ids,
        cache_length=longest + task.new_tokens,
        max_out_length=task.new_tokens,
        pad_length=tuple(range(64, longest + 1, 64)),
    )
    del tree

    def answer() -> generation.Answers:
        answers: generation.Answers = [[] for _ in task.prompts]
        for chosen in generation.sorted_batches(task, int(rows)):
            texts = [json.dumps(task.prompts[i].tolist()) for i in chosen]
            out = sampler.sample(texts, max_new_tokens=task.new_tokens, return_state=True)
            for i, ids in zip(chosen, out.tokens.tolist(), strict=True):
                answers[i] = generation.end(task, ids)
        return answers

    generation.serve(task, answer)


if __name__ == "__main__":
    main()
