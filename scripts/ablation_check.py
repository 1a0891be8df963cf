"""Holds a rerun of an ablation against the table that is published of it.

    scripts/ablations.sh --check packing

Every score must lie within the published 95 % interval: over seeds where there are several, over
the test set where there is one. Where the published seeds agree to the digit, so that there is no
interval, a share may differ by 0.05 and another score by a tenth. Runs on the same kind of
processor give the same numbers; on another kind, rounding in bfloat16 leads training elsewhere.
Exits with 2 where a score lies outside, or a row is missing.
"""

import argparse
import csv
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from sft.run import display

ROOT = Path(__file__).resolve().parent.parent
SHARE, RATIO = 0.05, 0.1

Line = Mapping[str, str]
Key = tuple[str, ...]


class Row(NamedTuple):
    """One score beside the published one; ``verdict`` is same, within, outside or missing."""

    where: str
    metric: str
    published: str
    here: str
    verdict: str


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", help="of a file in configs/ablations")
    parser.add_argument("table", type=Path, help="sweep.csv, as sft report has written it")
    parser.add_argument("--results", type=Path, default=ROOT / "configs/ablations/results")
    args = parser.parse_args(argv)
    published = args.results / f"{args.name}.csv"
    for path, way in ((published, "name one that has been run"), (args.table, "run it first")):
        if not path.exists():
            print(f"ablation_check: {path}: no such table; {way}.", file=sys.stderr)
            return 2
    rows = list(compare(read(published), read(args.table)))
    print(f"{'row':<44}{'metric':<16}{'published':<32}{'here':<12}")
    for row in rows:
        print(f"{row.where:<44}{row.metric:<16}{row.published:<32}{row.here:<12}{row.verdict}")
    bad = [row for row in rows if row.verdict in ("outside", "missing")]
    same = sum(row.verdict == "same" for row in rows)
    print(
        f"{args.name}: {len(rows)} scores, {same} the same to the digit, "
        f"{len(rows) - same - len(bad)} within, {len(bad)} outside or missing."
    )
    return 2 if bad else 0


def read(path: Path) -> dict[Key, Line]:
    """Lines by set, settings, seeds, what answers without a model are, and metric."""
    with path.open() as file:
        lines = list(csv.DictReader(file))
    columns = list(lines[0])
    keys = ["set", *columns[columns.index("set") + 1 : columns.index("seeds")], "seeds"]
    return {
        (*(line[key] for key in keys), line.get("without_model", ""), line["metric"]): line
        for line in lines
    }


def compare(published: Mapping[Key, Line], here: Mapping[Key, Line]) -> Iterator[Row]:
    """Every published score, with the one of the rerun."""
    for key, line in published.items():
        metric, mean = line["metric"], float(line["mean"])
        low, high = limits(line)
        where = ", ".join(Path(part).stem if "/" in part else part for part in key[:-1] if part)
        text = f"{display.score(mean, metric)} [{display.interval(low, high, metric)}]"
        if key not in here:
            yield Row(where, metric, text, "–", "missing")
            continue
        found = float(here[key]["mean"])
        inside = "within" if low <= found <= high else "outside"
        verdict = "same" if found == mean else inside
        yield Row(where, metric, text, display.score(found, metric), verdict)


def limits(line: Line) -> tuple[float, float]:
    """What a rerun's score may be."""
    mean = float(line["mean"])
    if line["low"]:
        return float(line["low"]), float(line["high"])
    width = SHARE if display.is_share(line["metric"]) else RATIO * abs(mean)
    return mean - width, mean + width


if __name__ == "__main__":
    sys.exit(main())
