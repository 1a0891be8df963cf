"""TRL's own data preparation, from a JSONL file of ``messages`` to the last collated batch.

Route: a real ``SFTTrainer`` is constructed, on a random Gemma 3 of one tiny layer with the true
vocabulary, and what its constructor spends in ``_prepare_dataset`` is timed, then its own training
dataloader is iterated once. This is fair to TRL: the steps, their order and their arguments are
those of its users, and what is no data work (imports, loading the tokenizer, building the model,
the rest of the constructor) is not counted. Timed are

    read      ``datasets.load_dataset("json")``
    prepare   chat template, tokens, assistant mask, labels, packing (``bfd``, its default)
    batches   the packed rows through its data collator, ``batch_size`` rows at a time

The chat template is TRL's ``gemma3.jinja``, which is the published one; for
``assistant_only_loss=True`` the trainer swaps in its ``gemma3_training.jinja``, whose generation
markers hold the answer, its ``<end_of_turn>`` and the newline after it.

``--processes 1`` leaves ``dataset_num_proc`` at its default, which is this process alone: a pool
of one would only cost it more. The caches of ``datasets`` are in a directory of this run.

With ``--ids FILE`` it times nothing and writes each conversation's ids and labels, unpacked.
"""

import argparse
import itertools
import json
import os
import tempfile
import time
from pathlib import Path


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="TRL's data preparation")
    parser.add_argument("--conversations", required=True, help="JSONL of messages")
    parser.add_argument("--tokenizer", required=True, help="tokenizer.json")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--max-length", type=int, default=2048)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--ids", type=Path, help="write ids and labels (.npz) instead")
    args = parser.parse_args()
    # As many cores as processes: libraries differ in which of their thread settings they honour.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.processes])
    return args


def make_trainer(args: argparse.Namespace, output: str, spans: dict[str, float]):
    """Constructs the trainer; adds the seconds of "read" and "prepare" to ``spans``."""
    import trl
    from datasets import load_dataset
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig, PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer

    class Timed(SFTTrainer):
        """Times the preparation; everything else is TRL's."""

        def _prepare_dataset(self, *inputs, **options):
            began = time.perf_counter()
            prepared = super()._prepare_dataset(*inputs, **options)
            spans["prepare"] = time.perf_counter() - began
            return prepared

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=args.tokenizer,
        bos_token="<bos>",
        eos_token="<end_of_turn>",  # as in the published tokenizer_config.json
        pad_token="<pad>",
        unk_token="<unk>",
    )
    template = Path(trl.__file__).parent / "chat_templates" / "gemma3.jinja"
    tokenizer.chat_template = template.read_text()
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "head_dim": 8}
    heads = {"num_attention_heads": 1, "num_key_value_heads": 1}
    model = Gemma3ForCausalLM(Gemma3TextConfig(vocab_size=262144, **sizes, **heads))
    config = SFTConfig(
        output_dir=output,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        assistant_only_loss=True,
        packing=args.ids is None,
        max_length=args.max_length if args.ids is None else None,
        dataset_num_proc=args.processes if args.processes > 1 else None,
        per_device_train_batch_size=args.batch_size,
    )
    began = time.perf_counter()
    conversations = load_dataset("json", data_files=args.conversations, split="train")
    spans["read"] = time.perf_counter() - began
    return Timed(model=model, args=config, train_dataset=conversations, processing_class=tokenizer)


def measure(args: argparse.Namespace, output: str) -> dict:
    """Prepares, and iterates once for the clock and once more for the counts."""
    spans: dict[str, float] = {}
    trainer = make_trainer(args, output, spans)
    began = time.perf_counter()
    for _ in trainer.get_train_dataloader():
        pass
    spans["batches"] = time.perf_counter() - began
    conversations, tokens, trained, shapes = 0, 0, 0, set()
    for batch in trainer.get_train_dataloader():
        conversations += len(batch["cu_seq_lens_q"]) - 1
        tokens += batch["input_ids"].numel()
        trained += int((batch["labels"] != -100).sum())
        shapes.add(tuple(batch["input_ids"].shape))
    return {
        "seconds": spans,
        "conversations": conversations,
        "tokens": tokens,
        "trained_tokens": trained,
        # Of the packed rows: the collator lays them end to end, so each batch has its own length.
        "padding_share": 1 - tokens / (len(trainer.train_dataset) * args.max_length),
        "shapes": len(shapes),
    }


def write_ids(args: argparse.Namespace, output: str) -> dict:
    """Writes int64 ``ids``, ``labels`` (-100: not trained) and ``offsets`` of all conversations."""
    import numpy as np

    rows = make_trainer(args, output, {}).train_dataset
    ids, labels = list(rows["input_ids"]), list(rows["labels"])
    np.savez(
        args.ids,
        ids=np.array(list(itertools.chain.from_iterable(ids))),
        labels=np.array(list(itertools.chain.from_iterable(labels))),
        offsets=np.cumsum([0, *map(len, ids)]),
    )
    return {"conversations": len(ids)}


def main() -> None:
    args = arguments()
    reply = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not end up in the reply
    with tempfile.TemporaryDirectory() as output:
        os.environ["HF_DATASETS_CACHE"] = f"{output}/datasets"
        result = (write_ids if args.ids else measure)(args, output)
    print(json.dumps(result), file=reply, flush=True)


if __name__ == "__main__":
    main()
