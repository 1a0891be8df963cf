"""``sft.model.decode.generate``, as ``sft eval`` calls it. Variant: DTYPE:ROWS."""

import generation
import jax.numpy as jnp

from sft.model import decoder, specs, weights
from sft.model.decode import generate


def main() -> None:
    task = generation.task()
    dtype, rows = task.words
    spec = specs.get("gemma3_270m")
    params = weights.load(spec, str(task.exchange / "hf"), dtype=dtype)
    options = decoder.Options(dtype=jnp.dtype(dtype))
    stops = tuple(task.stop_ids)
    sampling = generate.Sampling(max_new_tokens=task.new_tokens, stop_ids=stops or (-1,))

    def answer() -> generation.Answers:
        answers = generate.generate(
            spec, options, sampling, params, None, task.prompts, batch_size=int(rows)
        )
        # Stop tokens are not returned; they were written all the same.
        return [ids if len(ids) == task.new_tokens else [*ids, task.stop_ids[0]] for ids in answers]

    generation.serve(task, answer)


if __name__ == "__main__":
    main()
