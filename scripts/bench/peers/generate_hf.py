"""transformers' ``generate``: batches of like length, padded on the left, greedy.

Variant: DTYPE:CACHE:ROWS, where CACHE is ``dynamic`` (its default) or ``static``.
"""

import generation
import numpy as np
import torch
from transformers import AutoModelForCausalLM


def main() -> None:
    task = generation.task()
    dtype, cache, rows = task.words
    torch.set_num_threads(task.threads)
    model = AutoModelForCausalLM.from_pretrained(
        task.exchange / "hf", dtype=getattr(torch, dtype), attn_implementation="sdpa"
    ).eval()
    model.generation_config.eos_token_id = task.stop_ids or None
    options = {"cache_implementation": "static"} if cache == "static" else {}

    def batch(chosen: list[int]) -> generation.Answers:
        length = max(len(task.prompts[i]) for i in chosen)
        ids_BxL, is_token_BxL = np.zeros((2, len(chosen), length), np.int64)
        for row, i in enumerate(chosen):
            ids_BxL[row, length - len(task.prompts[i]) :] = task.prompts[i]
            is_token_BxL[row, length - len(task.prompts[i]) :] = 1
        with torch.inference_mode():
            out = model.generate(
                input_ids=torch.from_numpy(ids_BxL),
                attention_mask=torch.from_numpy(is_token_BxL),
                max_new_tokens=task.new_tokens,
                do_sample=False,
                pad_token_id=0,
                use_cache=True,
                **options,
            )
        return [generation.end(task, ids) for ids in out[:, length:].tolist()]

    def answer() -> generation.Answers:
        answers: generation.Answers = [[] for _ in task.prompts]
        for chosen in generation.sorted_batches(task, int(rows)):
            for i, ids in zip(chosen, batch(chosen), strict=True):
                answers[i] = ids
        return answers

    generation.serve(task, answer)


if __name__ == "__main__":
    main()
