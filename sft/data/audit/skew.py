"""How the prompts and answers of one set differ from those of training."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from sft.data.audit import contents, effects, texts
from sft.data.batches.examples import Examples
from sft.data.chat import encoding
from sft.data.conversation import Conversation
from sft.data.tokenizer.sentencepiece import Tokenizer

_LOOK_TOKENS = 1024  # prompt tokens of a row that the vocabulary is counted over
_COMMON = 0.05  # share of rows from which first words are shown as a template's

REMEDIES = {
    "instruction": "Put the same instruction in front of the prompts of both: what the model was "
    "tuned with is what it must be served with.",
    "length": "Make the training prompts as long as the real ones: cut or join them alike, or add "
    "rows of the missing lengths.",
    "format": "Write the training rows in the format of the real ones.",
    "casing": "Train with the casing of the real prompts, or add copies of rows in that casing "
    "(config.data.augment.casing).",
    "script": "Add training rows in the missing scripts.",
    "language": "Add training rows in the missing languages.",
    "vocabulary": "Add training rows about what the other set is about.",
}


@dataclasses.dataclass(frozen=True)
class View:
    """What is compared of a set; texts and tokens of a seeded sample of the rows.

    Attributes:
      conversations: the sampled rows.
      prompt_tokens: int64, tokens of the user's texts a row.
      response_tokens: int64, tokens of the answers a row; ``None`` if answers are not compared.
      prompts: token ids of the user's texts of the sampled rows.
    """

    name: str
    rows: int
    conversations: Sequence[Conversation]
    prompt_tokens: np.ndarray
    response_tokens: np.ndarray | None
    prompts: Sequence[np.ndarray]


def sample(rows: int, seed: int = 0) -> np.ndarray:
    """Indices of at most ``texts.SAMPLE`` rows, sorted; the same for the same number of rows."""
    if rows <= texts.SAMPLE:
        return np.arange(rows)
    return np.sort(np.random.default_rng(seed).choice(rows, texts.SAMPLE, replace=False))


def view_of_set(
    name: str,
    conversations: Sequence[Conversation],
    examples: Examples,
    prompt_tokens: np.ndarray,
    response_tokens: np.ndarray,
) -> View:
    """Of a set with answers. The arrays are int64 ``[n]``, tokens a row."""
    chosen = sample(len(conversations))
    prompts = []
    for index in chosen:
        row = slice(examples.starts[index], examples.starts[index + 1])
        ids = examples.tokens[row][examples.kinds[row] == encoding.PROMPT]
        prompts.append(np.asarray(ids[:_LOOK_TOKENS]))
    shown = [conversations[i] for i in chosen]
    return View(name, len(conversations), shown, prompt_tokens, response_tokens, prompts)


def view_of_prompts(name: str, conversations: Sequence[Conversation], tokenizer: Tokenizer) -> View:
    """Of prompts as they come in production; answers, if any, are not looked at."""
    shown = [conversations[i] for i in sample(len(conversations))]
    ids = []
    for conversation in shown:
        said = [turn.text.strip() for turn in conversation.turns if turn.role == "user"]
        empty = np.zeros(0, np.int32)
        ids.append(np.concatenate([empty, *(tokenizer.encode_array(text) for text in said)]))
    lengths = np.array([len(row) for row in ids], np.int64)
    cut = [row[:_LOOK_TOKENS] for row in ids]
    return View(name, len(conversations), shown, lengths, None, cut)


def compare(train: View, other: View) -> dict[str, Any]:
    """Every feature in both sets, and what that comes to.

    Returns:
      ``{"left", "right", "rows", "told", "features", "differs", "unseen", "verdict", "summary",
      "choice", "remedies"}``: ``choice`` says when these are to be followed; ``features`` are
      ``effects.Difference`` as dicts plus ``differs`` and ``threshold``, the strongest first;
      ``told`` is false where there are too few rows; ``summary`` is the verdict without its
      numbers.
    """
    found: dict[str, Any] = {
        "left": train.name,
        "right": other.name,
        "rows": [train.rows, other.rows],
        "told": min(train.rows, other.rows) >= effects.MIN_ROWS,
        "features": [],
        "differs": 0,
        "unseen": {},
        "choice": "",
        "remedies": [],
    }
    if not found["told"]:
        few = train if train.rows < effects.MIN_ROWS else other
        found["verdict"] = found["summary"] = (
            f"It cannot be told whether {other.name} looks like {train.name}: {few.name} has "
            f"{texts.rows(few.rows)}, and at least {effects.MIN_ROWS} are needed."
        )
        return found
    differences = effects.holm([*_lengths(train, other), *_texts(train, other)])
    differences.sort(key=lambda d: (not d.differs, -d.strength))
    found["unseen"] = effects.unseen(train.prompts, other.prompts)
    for difference in differences:
        threshold = effects.THRESHOLDS[difference.measure]
        row = dataclasses.asdict(difference)
        found["features"].append(row | {"threshold": threshold, "differs": difference.differs})
    strong = [difference for difference in differences if difference.differs]
    found["differs"] = len(strong)
    looks = f"{other.name} looks like {train.name} in all {len(differences)} features compared."
    found["verdict"], found["summary"] = (
        _verdict(train, other, strong) if strong else (looks, looks)
    )
    groups = dict.fromkeys(difference.group for difference in strong)
    found["remedies"] = [REMEDIES[group] for group in groups]
    if strong and other.name != "production":  # which is given; the other sets are chosen
        share = "data.split.validation" if other.name == "validation" else "data.split.test"
        found["choice"] = (
            f"If {other.name} is not what production is like, cut it from the training rows: "
            f"{share}. If it is:"
        )
    return found


def _lengths(train: View, other: View) -> list[effects.Difference]:
    found = [
        effects.numbers("prompt: tokens", "length", train.prompt_tokens, other.prompt_tokens),
        effects.numbers("turns of the user", "length", _turns(train), _turns(other)),
    ]
    if train.response_tokens is not None and other.response_tokens is not None:
        pair = train.response_tokens, other.response_tokens
        found.append(effects.numbers("response: tokens", "length", *pair))
    vocabulary = effects.vocabulary(train.prompts, other.prompts)
    return found + ([vocabulary] if vocabulary else [])


def _turns(view: View) -> np.ndarray:
    return np.array([sum(t.role == "user" for t in c.turns) for c in view.conversations])


def _texts(train: View, other: View) -> list[effects.Difference]:
    sides = [("prompt", contents.prompt)]
    if other.response_tokens is not None:
        sides.append(("response", contents.answer))
    found = _instructions(train, other)
    for side, text_of in sides:
        left, right = ([text_of(c) for c in view.conversations] for view in (train, other))
        for name, test in texts.FORMATS.items():
            pair = [test(text) for text in left], [test(text) for text in right]
            found.append(effects.share(f"{side}: {name}", "format", *pair))
        found += _casing(side, left, right)
        for group, category in (("script", texts.main_script), ("language", texts.language)):
            pair = [category(text) for text in left], [category(text) for text in right]
            found.append(effects.mix(f"{side}: {group}", group, *pair))
    return found


def _casing(side: str, left: list[str], right: list[str]) -> list[effects.Difference]:
    """Over the rows that have case; nothing where too few have."""
    pair = [[c for c in map(texts.casing, side) if c != "no case"] for side in (left, right)]
    if min(map(len, pair)) < effects.MIN_ROWS:
        return []
    return [
        effects.share(f"{side}: {kind}", "casing", *([c == kind for c in cs] for cs in pair))
        for kind in ("all lower case", "all upper case", "starts with a capital")
    ]


def _instructions(train: View, other: View) -> list[effects.Difference]:
    systems = [[(c.system or "").strip() for c in v.conversations] for v in (train, other)]
    present = [[bool(text) for text in side] for side in systems]
    found = [effects.share("system instruction present", "instruction", *present)]
    names = _short_names({text for side in systems for text in side if text})
    used = [[names[text] for text in side if text] for side in systems]
    if min(map(len, used)) >= effects.MIN_ROWS:
        found.append(effects.mix("which system instruction", "instruction", *used))
    firsts = [
        [texts.shorten(" ".join(contents.prompt(c).split(None, 3)[:3]), 40) for c in v]
        for v in (train.conversations, other.conversations)
    ]
    counts = [Counter(side) for side in firsts]
    common = {w for c in counts for w, n in c.items() if n >= _COMMON * c.total()}
    pair = ([w if w in common else "other" for w in side] for side in firsts)
    found.append(effects.mix("prompt: first three words", "instruction", *pair))
    return found


def _short_names(long: set[str]) -> dict[str, str]:
    """Text → its beginning, numbered where several texts begin alike."""
    names, seen = {}, Counter()
    for text in sorted(long):
        short = texts.shorten(text, 60)
        seen[short] += 1
        names[text] = short if seen[short] == 1 else f"{short} ({seen[short]})"
    return names


def _verdict(train: View, other: View, strong: Sequence[effects.Difference]) -> tuple[str, str]:
    """In full, and without the numbers; the strongest features first."""
    ways = f"{len(strong)} way{'s' if len(strong) > 1 else ''}"
    start = f"{other.name} differs from {train.name} in {ways}"
    named = "; ".join(describe(train.name, other.name, difference) for difference in strong[:4])
    more = "; …" if len(strong) > 4 else "."
    first = ", ".join(f"“{difference.feature}”" for difference in strong[:3])
    return f"{start}: {named}{more}", f"{start}, most in {first}."


def describe(left: str, right: str, difference: effects.Difference) -> str:
    """``prompt: tokens (train 12, production 80)``."""
    values = difference.left, difference.right
    if difference.group == "vocabulary":
        return f"prompt: vocabulary ({difference.effect:.2f} bits beyond chance)"
    if isinstance(values[0], dict):
        names = sorted(
            {*values[0], *values[1]},
            key=lambda n: -abs(values[0].get(n, 0) - values[1].get(n, 0)),
        )
        name = names[0]
        parts = [texts.percent(value.get(name, 0)) for value in values]
        pair = f"{left} {parts[0]}, {right} {parts[1]}"
        return f"{difference.feature} ({name!r}: {pair})"
    form = texts.percent if difference.measure == "Cohen's h" else "{:,.0f}".format
    pair = f"{left} {form(values[0])}, {right} {form(values[1])}"
    return f"{difference.feature} ({pair})"
