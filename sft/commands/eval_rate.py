"""``sft eval rate``: a page on which people give the verdicts that a judge gives."""

from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from sft.eval.judge import judging, prompts, rows
from sft.eval.judge.rows import Item
from sft.report import rating
from sft.run.directory import write_json, write_text


def main(config: ConfigDict, workdir: str, checkpoint: str) -> dict[str, Any]:
    """Writes ``eval/judge.rate.<mode>.html``, and what its ids are into the ``.json`` beside it.

    ``config.judge.sample`` rows of each set are drawn, the same ones of each arm: pointwise those
    of ``checkpoint`` and, so that the page is blind, of ``config.judge.against`` ("" = none);
    pairwise the two side by side in a random order.

    Returns:
      ``{"page", "items"}``.

    Raises:
      UserError: an arm has no predictions.
    """
    judge, folder = config.judge, Path(workdir) / "eval"
    items = _items(config, folder, checkpoint)
    question = prompts.question(config)
    page = folder / f"judge.rate.{judge.mode}.html"
    write_text(page, rating.render(config, question, items))
    known = {item.id: {"arms": item.arms, "set": item.set, "row": item.row} for item in items}
    write_json(page.with_suffix(".json"), {"mode": judge.mode, "items": known})
    print(f"wrote {page}: {len(items)} to rate. Open it in a browser; it saves a CSV file.")
    return {"page": str(page), "items": len(items)}


def _items(config: ConfigDict, folder: Path, checkpoint: str) -> list[Item]:
    """In the order of the page."""
    judge = config.judge
    arms = judging.arms_of(config, checkpoint)
    if judge.mode == "pointwise":
        other = rows.arm_name(judge.against)
        groups = [arms] + ([[other]] if other not in ("", arms[0]) else [])
    else:
        groups = [arms]
    count = min(judge.sample, judge.max_examples or judge.sample)
    items = [
        item
        for group in groups
        for found in rows.load(folder, group, judge.reference).values()
        for item in rows.draw(found, count, judge.seed)
    ]
    rng = np.random.default_rng([judge.seed, len(items)])
    if judge.mode == "pairwise":
        swap = rng.random(len(items)) < 0.5
        items = [item.swapped if s else item for item, s in zip(items, swap, strict=True)]
    return [items[i] for i in rng.permutation(len(items))]
