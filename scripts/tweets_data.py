"""Makes a labelled set of real text: 4,200 tweets, each negative, neutral or positive.

    python3 -m pip download --no-deps --no-binary :all: vaderSentiment==3.3.2 --dest data/tweets
    python scripts/tweets_data.py data/tweets/vaderSentiment-3.3.2.tar.gz

The tweets and twenty people's ratings of each, from -4 to 4, are those of Hutto and Gilbert,
*VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text* (ICWSM 2014),
and lie in the source archive of their package (MIT licence). A mean rating above 0.5 is called
positive, below -0.5 negative. Texts that stand twice are kept once; HTML entities are written as
characters.

Writes ``train.jsonl`` (1,000 rows), ``validation.jsonl`` (200) and ``test.jsonl`` (400) beside the
archive, drawn with a fixed seed; a row has ``text`` and ``label``.
"""

import argparse
import hashlib
import html
import io
import json
import random
import sys
import tarfile
from collections import Counter
from pathlib import Path

SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
INSIDE = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
TWEETS = "hutto_ICWSM_2014/tweets_GroundTruth.txt"
SIZES = {"test": 400, "validation": 200, "train": 1000}
EDGE = 0.5  # of the mean rating, beyond which a tweet is not neutral


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("archive", type=Path, help="vaderSentiment-3.3.2.tar.gz")
    args = parser.parse_args(argv)
    try:
        content = args.archive.read_bytes()
    except OSError as error:
        print(f"tweets_data: {args.archive}: {error.strerror}. See --help.", file=sys.stderr)
        return 2
    if hashlib.sha256(content).hexdigest() != SHA256:
        print(
            f"tweets_data: {args.archive}: not the archive of vaderSentiment 3.3.2 (its SHA-256 "
            "differs). Download it again.",
            file=sys.stderr,
        )
        return 2
    found = rows(content)
    random.Random(0).shuffle(found)
    start = 0
    for name, size in SIZES.items():
        part, start = found[start : start + size], start + size
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in part)
        path = args.archive.with_name(f"{name}.jsonl")
        path.write_text(text, encoding="utf-8")
        print(f"{path}: {dict(Counter(row['label'] for row in part).most_common())}")
    return 0


def rows(archive: bytes) -> list[dict[str, str]]:
    """Every tweet once, in the order of the file."""
    inner = _member(archive, INSIDE)
    found: dict[str, str] = {}
    for line in _member(inner, TWEETS).decode().splitlines():
        _, rating, text = line.split("\t", 2)
        text = html.unescape(html.unescape(text)).strip()  # some were escaped twice
        found.setdefault(text, label(float(rating)))
    return [{"text": text, "label": name} for text, name in found.items()]


def label(rating: float) -> str:
    if abs(rating) <= EDGE:
        return "neutral"
    return "positive" if rating > 0 else "negative"


def _member(archive: bytes, name: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        file = tar.extractfile(name)
        assert file is not None, name
        return file.read()


if __name__ == "__main__":
    sys.exit(main())
