"""Counts a person should see before the first step."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sft.data.chat import Example
from sft.data.records import Records


def count(paths: str, found: Records, examples: Sequence[Example]) -> dict[str, Any]:
    """Rows, rejects by reason, and tokens of one set, for ``data/report.json``."""
    lengths = np.array([len(example.tokens) for example in examples])
    trained = np.array([int(example.is_target.sum()) for example in examples])
    return {
        "files": [name.strip() for name in paths.split(",")],
        "rows": len(examples),
        "rejected": found.counts,
        "rejected_examples": [f"{source}: {reason}" for source, reason in found.rejected[:20]],
        "tokens": int(lengths.sum()),
        "trained_tokens": int(trained.sum()),
        "mean_tokens": float(lengths.mean()),
        "max_tokens": int(lengths.max()),
    }
