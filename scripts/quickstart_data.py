"""Makes the quickstart's data: a date written in any language, answered as ISO 8601.

    python scripts/quickstart_data.py --out data/dates

Nothing in the language is synthetic: patterns, month, weekday and era names, and digits are those
of Unicode CLDR, as Babel ships them; only the day is drawn at random (uniformly, 1950-2049).
Direction marks and narrow spaces stay as CLDR gives them. Babel carries CLDR's Gregorian calendar
alone, so every date is Gregorian.

A row's answer is the only one its text allows:
  * the text opens with the locale (``en-GB: 03/04/2024``), which settles the order of the fields;
  * day, month and year are fields of the pattern, and a month is a number or a name, never an
    initial. A two-digit year means 1950-2049, the range that all dates are drawn from;
  * where a locale's own patterns disagree on the order of day and month, those that its short
    style does not settle are left out (see ``consistent``);
  * what a reader could take for another calendar is left out (see ``OTHER_CALENDAR``).

Every row has its own day, so no answer of one split occurs in another. ``test_held_out.jsonl``
uses the formats of ``HELD_OUT`` only, which no other split uses, and only strings that no other
format would have produced. Locales take turns, and so do the formats of each locale, so any first
rows of a file are a balanced sample too.
"""

import argparse
import datetime
import hashlib
import json
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Never, SupportsInt

from sft.errors import BAD_INPUT, UserError

try:
    import babel
    from babel.core import Locale, get_cldr_version, get_global
    from babel.dates import DateTimeFormat, DateTimePattern, tokenize_pattern
except ImportError:
    print("quickstart_data: babel is missing: pip install 'gemma-sft[demo]'", file=sys.stderr)
    sys.exit(BAD_INPUT)

INSTRUCTION = "Write the date as YYYY-MM-DD."
TAGS = (
    "af-ZA am-ET ar-EG ar-MA bg-BG bn-BD ca-ES cs-CZ da-DK de-DE el-GR en-GB en-US es-ES et-EE "
    "fa-IR fi-FI fr-FR gu-IN he-IL hi-IN hr-HR hu-HU hy-AM id-ID it-IT ja-JP ka-GE kn-IN ko-KR "
    "lt-LT lv-LV ml-IN mr-IN my-MM nl-NL pa-IN pl-PL pt-BR ro-RO ru-RU sk-SK sr-RS sv-SE sw-KE "
    "ta-IN te-IN th-TH tr-TR uk-UA vi-VN zh-CN zh-TW"
)
LOCALES = TAGS.split()
STYLES = ("full", "long", "medium", "short")  # the other formats are CLDR skeletons
SEEN = ("full", "medium", "short", "yMMMd", "yMd", "yMEd", "GyMd", "GyMMMd")
HELD_OUT = ("long", "yMMMEd")

# Fields that would not say "Gregorian" to a reader there: the Amharic era is also that of the
# Ethiopic calendar, and two digits of a year in Thailand are commonly of the Buddhist era.
OTHER_CALENDAR = {"am-ET": r"G", "th-TH": r"(?<!y)yy(?!y)"}

# Zero of each decimal numbering system that is some locale's default; 1 to 9 follow it in Unicode.
ZERO = {
    "latn": "0",
    "arab": "\N{ARABIC-INDIC DIGIT ZERO}",
    "arabext": "\N{EXTENDED ARABIC-INDIC DIGIT ZERO}",
    "beng": "\N{BENGALI DIGIT ZERO}",
    "deva": "\N{DEVANAGARI DIGIT ZERO}",
    "mymr": "\N{MYANMAR DIGIT ZERO}",
}

FIRST, LAST = datetime.date(1950, 1, 1), datetime.date(2049, 12, 31)
DAYS = (LAST - FIRST).days + 1
SPLITS = {"train": 3000, "validation": 200, "test": 400, "test_held_out": 200}
Formats = dict[str, DateTimePattern]


class NativeFormat(DateTimeFormat):
    """Babel's field formatter, with the digits of the locale's default numbering system."""

    def format(self, value: SupportsInt, length: int) -> str:
        zero = ord(ZERO[self.locale.default_numbering_system])
        return "".join(chr(zero + int(digit)) for digit in super().format(value, length))

    def format_month(self, char: str, num: int) -> str:
        return self.format(self.extract("M"), num) if num < 3 else super().format_month(char, num)


def render(day: datetime.date, tag: str, pattern: DateTimePattern) -> str:
    """The user text, such as ``de-DE: 15. März 2024``."""
    return f"{tag}: {pattern % NativeFormat(day, Locale.parse(tag, sep='-'))}"


def script_of(tag: str) -> str:
    """ISO 15924 code of the script CLDR deems likely for a locale, such as ``Cyrl``."""
    likely, language = get_global("likely_subtags"), tag.split("-")[0]
    return (likely.get(tag.replace("-", "_")) or likely[language]).split("_")[1]


def day_fields(pattern: str) -> list[tuple[str, int]]:
    """The day, month and year fields of a CLDR pattern with their widths, in order."""
    fields = [value for kind, value in tokenize_pattern(pattern) if kind == "field"]
    return [("M" if x == "L" else x, int(width)) for x, width in fields if x in "dMLy"]


def complete(pattern: str) -> bool:
    """Whether a reader finds day, month (not as an initial) and year, once each."""
    fields = day_fields(pattern)
    return sorted(x for x, _ in fields) == ["M", "d", "y"] and dict(fields)["M"] < 5


def numeric_order(pattern: str) -> str | None:
    """``"dMy"``, ``"yMd"``, … of an all-numeric pattern; None where the month is named."""
    fields = dict(day_fields(pattern))
    return "".join(fields) if fields["M"] < 3 else None


def consistent(formats: Formats, short: str) -> Formats:
    """Drops numeric formats whose day and month a reader who knows the locale could swap.

    CLDR 47 has Finnish ``M.d.y G`` beside ``d.M.y``, and Nepali ``M/d/y G`` beside ``yy/M/d``. The
    order of ``short``, the locale's short style, is trusted. Where it has the year on the other
    side, only ``dMy`` and ``yMd`` are, and only if no other pattern contradicts them.
    """
    orders = {name: numeric_order(pattern.pattern) for name, pattern in formats.items()}
    trusted = {numeric_order(short), None}
    used = trusted | set(orders.values())
    trusted |= {order for order, rival in (("dMy", "Mdy"), ("yMd", "ydM")) if rival not in used}
    return {name: formats[name] for name, order in orders.items() if order in trusted}


def formats_of(tag: str) -> tuple[Formats, Formats]:
    """A locale's (seen, held-out) patterns by format name, without ambiguous or equal ones."""
    locale = Locale.parse(tag, sep="-")
    found = {}
    for name in SEEN + HELD_OUT:
        source = locale.date_formats if name in STYLES else locale.datetime_skeletons
        pattern = source.get(name)
        misleading = OTHER_CALENDAR.get(tag, "(?!)")  # by default, matches nothing
        if pattern and complete(pattern.pattern) and not re.search(misleading, pattern.pattern):
            found[name] = pattern
    found = consistent(found, locale.date_formats["short"].pattern)
    probes = [datetime.date(2024, month, 15 - month) for month in range(1, 13)]
    distinct, known = {}, []
    for name, pattern in found.items():  # seen formats come first, so they win over held-out ones
        texts = [render(day, tag, pattern) for day in probes]
        if texts not in known:
            known.append(texts)
            distinct[name] = pattern
    seen = {name: pattern for name, pattern in distinct.items() if name in SEEN}
    return seen, {name: pattern for name, pattern in distinct.items() if name in HELD_OUT}


def shuffled_days(seed: int) -> Iterator[datetime.date]:
    """Every day once; asking for more is a ``UserError``."""
    for number in random.Random(seed).sample(range(DAYS), DAYS):
        yield FIRST + datetime.timedelta(number)
    raise UserError(f"too many rows: {FIRST.year}-{LAST.year} has {DAYS} days; ask for fewer")


def draw(size: int, days: Iterator[datetime.date], rng: random.Random, held_out: bool) -> list:
    """Takes ``size`` days and writes each in the next locale and that locale's next format."""
    table = {tag: formats_of(tag) for tag in LOCALES}
    tags = [tag for tag in LOCALES if table[tag][held_out]]
    start = {tag: rng.randrange(1000) for tag in tags}  # so that formats differ among locales
    rows, turn = [], 0
    while len(rows) < size:
        for tag in rng.sample(tags, min(len(tags), size - len(rows))):
            seen, chosen = table[tag][0], table[tag][held_out]
            name = list(chosen)[(start[tag] + turn) % len(chosen)]
            for day in days:
                text = render(day, tag, chosen[name])
                if not held_out or all(text != render(day, tag, p) for p in seen.values()):
                    break
            kinds = {"locale": tag, "format": name, "script": script_of(tag)}
            rows.append({"day": day.isoformat(), "text": text, **kinds})
        turn += 1
    return rows


def build(sizes: dict[str, int], seed: int) -> dict[str, list[dict]]:
    """Rows (day, text, locale, format, script) of every split.

    The evaluation splits take their days first: they stay the same whatever the size of train.

    Raises:
      UserError: when the sizes add up to more days than there are.
    """
    days, splits = shuffled_days(seed), {}
    for name in ("test", "test_held_out", "validation", "train"):
        rng = random.Random(f"{seed}/{name}")
        splits[name] = draw(sizes[name], days, rng, held_out=name == "test_held_out")
    return {name: splits[name] for name in SPLITS}


def to_json(row: dict) -> str:
    """One line in the format of Gemini tuning sets."""
    record = {
        "systemInstruction": {"parts": [{"text": INSTRUCTION}]},
        "contents": [
            {"role": "user", "parts": [{"text": row["text"]}]},
            {"role": "model", "parts": [{"text": row["day"]}]},
        ],
    }
    return json.dumps(record, ensure_ascii=False) + "\n"


def recipe(sizes: dict[str, int], seed: int) -> dict:
    """All that decides the bytes of the files."""
    source = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    made_with = {"babel": babel.__version__, "cldr": get_cldr_version(), "script_sha256": source}
    return {"sizes": sizes, "seed": seed, **made_with}


def counts(rows: list[dict]) -> dict[str, Counter]:
    kinds = ("locale", "format", "script")
    return {kind: Counter(row[kind] for row in rows) for kind in kinds}


def up_to_date(out: Path, wanted: dict) -> bool:
    """Whether the files in ``out`` are, byte for byte, what ``wanted`` would make."""
    try:
        manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
        return manifest["recipe"] == wanted and all(
            hashlib.sha256((out / name).read_bytes()).hexdigest() == digest
            for name, digest in manifest["sha256"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def write(out: Path, splits: dict[str, list[dict]], wanted: dict) -> None:
    """Writes the split files and then the manifest, each under its name only when complete."""
    files = {f"{name}.jsonl": "".join(map(to_json, rows)) for name, rows in splits.items()}
    digests = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in files.items()}
    table = {name: counts(rows) for name, rows in splits.items()}
    manifest = {"recipe": wanted, "sha256": digests, "counts": table}
    files["manifest.json"] = json.dumps(manifest, indent=1, sort_keys=True) + "\n"
    out.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        partial = out / f"{name}.partial"
        partial.write_text(text, encoding="utf-8", newline="\n")
        partial.replace(out / name)


def summary(splits: dict[str, list[dict]], examples: int = 2) -> str:
    """Sizes, and the first examples of train in each script."""
    lines = [f"{name}: {len(rows)} rows" for name, rows in splits.items()]
    by_script: dict[str, list[dict]] = {}
    for row in splits["train"]:
        by_script.setdefault(row["script"], []).append(row)
    for script, rows in sorted(by_script.items()):
        lines += [f"  {script}  {row['day']}  {row['text']}" for row in rows[:examples]]
    return "\n".join(lines)


def row_count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected 1 or more rows")
    return int(text)


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Never:
        raise UserError(f"{message}; see --help")


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("data/dates"), help="directory to write")
    parser.add_argument("--seed", type=int, default=0)
    for name, size in SPLITS.items():
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, type=row_count, default=size, metavar="N", help=f"rows, {size}")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    try:
        args = arguments(argv)
        sizes = {name: getattr(args, name) for name in SPLITS}
        wanted = recipe(sizes, args.seed)
        if up_to_date(args.out, wanted):
            print(f"{args.out}: already there")
            return 0
        splits = build(sizes, args.seed)
        try:
            write(args.out, splits, wanted)
        except OSError as error:
            raise UserError(f"--out {args.out}: {error.strerror}; name a writable place") from None
    except UserError as error:
        print(f"quickstart_data: {error}", file=sys.stderr)
        return BAD_INPUT
    print(f"{summary(splits)}\n{args.out}: written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
