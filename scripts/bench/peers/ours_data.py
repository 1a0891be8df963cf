"""This repository's data path, from a file to the last packed batch, as ``sft train`` runs it.

    read      the file to conversations
    encode    chat format, tokens and mask
    fit       the over-long policy ``drop``
    plan      order and packing of one epoch
    batches   every batch, as numpy arrays

``--processes`` are those that encode; batches are read ahead on threads, which is the default, as
TRL's dataloader keeps to its own process. Not timed: imports and loading the tokenizer.
"""

import argparse
import itertools
import json
import os
import time

from data_exchange import SHAREGPT

from sft.data.batches import examples, pipeline, truncation
from sft.data.read import records
from sft.data.tokenizer import sentencepiece


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="our data preparation")
    parser.add_argument("--conversations", required=True, help="JSONL of messages")
    parser.add_argument("--sharegpt", action="store_true", help="it is the original file instead")
    parser.add_argument("--tokenizer", required=True, help="GGUF file")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--max-length", type=int, default=2048)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--cache", default="", help="directory of tokenised sets")
    args = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.processes])
    return args


def measure(args: argparse.Namespace) -> dict:
    """Prepares, and iterates once for the clock and once more for the counts."""
    # Not at the top, which the processes that encode import too: they need neither.
    import grain  # noqa: F401

    import sft.types  # noqa: F401

    vocabulary = sentencepiece.from_gguf(args.tokenizer)
    workers = args.processes if args.processes > 1 else 0
    reading = SHAREGPT if args.sharegpt else records.Reading()
    clock = [time.perf_counter()]
    read = records.read([records.Source("bench", args.conversations, reading)], max_rejected=1.0)
    clock.append(time.perf_counter())
    encoded = examples.encode_all(
        read.conversations, vocabulary, "gemma3", "all", workers=workers, cache=args.cache
    )
    clock.append(time.perf_counter())
    sources = [conversation.source for conversation in read.conversations]
    kept, _, report = truncation.fit(encoded, args.max_length, "drop", 1.0, sources)
    clock.append(time.perf_counter())
    plan = pipeline.plan_training(
        kept.lengths,
        max_length=args.max_length,
        batch_size=args.batch_size,
        epochs=1,
        seed=0,
        packed=True,
        origins=None,
        weights=None,
    )
    clock.append(time.perf_counter())
    for _ in pipeline.train_batches(plan, kept):
        pass
    clock.append(time.perf_counter())
    spans = (b - a for a, b in itertools.pairwise(clock))
    return {
        "seconds": dict(zip(("read", "encode", "fit", "plan", "batches"), spans, strict=True)),
        "rejected": len(read.rejected),
        "over_long": report["over"],
        **contents(pipeline.train_batches(plan, kept)),
    }


def contents(batches) -> dict:
    """What the batches hold. A conversation of n tokens takes n - 1 places: its last token is
    only a target."""
    conversations, places, trained, slots, shapes = 0, 0, 0, 0, set()
    for batch in batches:
        conversations += int(batch.segments_BxL.max(axis=1).sum())
        places += int((batch.segments_BxL > 0).sum())
        trained += int((batch.weights_BxL > 0).sum())
        slots += batch.tokens_BxL.size
        shapes.add(batch.tokens_BxL.shape)
    return {
        "conversations": conversations,
        "tokens": places + conversations,
        "trained_tokens": trained,
        "padding_share": 1 - places / slots,
        "shapes": len(shapes),
    }


if __name__ == "__main__":
    print(json.dumps(measure(arguments())), flush=True)
