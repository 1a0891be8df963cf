"""What the texts of a set hold: system instructions, answers, and marks of a wrong preparation."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from sft.data.audit.texts import shorten
from sft.data.conversation import Conversation

CONTROL = re.compile(  # what chat templates write; in a text it is spelt out, never a control id
    r"<start_of_turn>|<end_of_turn>|<\|turn>|<turn\|>|<bos>|<eos>|<\|im_start\|>|<\|im_end\|>"
)
MAX_LABELS = 50
MAX_LABEL_SHARE = 0.05  # distinct answers in a row of answers, for them to be labels
MAX_LABEL_WORDS = 5
_EXAMPLE = re.compile(r"^\W{0,4}(?:few-shot )?example\s*#?\d+\s*[:.)\n]", re.I | re.MULTILINE)
_SHOT = re.compile(  # a question line, and further down an answer line with an answer in it
    r"^(?:Q|Question|Input|Text|Sentence) ?\d*:[ \t\n]*+\S[^\n]*+\n.{0,400}?"
    r"^(?:A|Answer|Output|Label|Response) ?\d*:[ \t]*+\S",
    re.MULTILINE | re.DOTALL,
)


def prompt(conversation: Conversation) -> str:
    """The first text of the user."""
    return next((turn.text for turn in conversation.turns if turn.role == "user"), "")


def answer(conversation: Conversation) -> str:
    """The last answer; ``""`` when there is none."""
    return next((t.text for t in reversed(conversation.turns) if t.role == "model"), "")


def has_examples(text: str) -> bool:
    """Whether a prompt shows worked examples: two numbered ones, or two answered questions."""
    return len(_EXAMPLE.findall(text)) > 1 or len(_SHOT.findall(text)) > 1


def marks(conversations: Sequence[Conversation]) -> dict[str, dict[str, Any]]:
    """Rows with signs of a wrong preparation, over all rows: ``{sign: {"rows", "first"}}``.

    Signs: a control string by itself; ``few_shot``: worked examples in a prompt; ``user_prefix``:
    a prompt that begins with ``user`` and a line break, or an answer with ``model``;
    ``trimmed_answers``: white space around an answer, which the chat format strips.
    """
    found: dict[str, dict[str, Any]] = {}
    for conversation in conversations:
        for sign in _signs(conversation):
            place = found.setdefault(sign, {"rows": 0, "first": conversation.source})
            place["rows"] += 1
    return found


def _signs(conversation: Conversation) -> set[str]:
    signs = set(CONTROL.findall(conversation.system or ""))
    for turn in conversation.turns:
        if "<" in turn.text:
            signs.update(CONTROL.findall(turn.text))
        if turn.text.startswith(("user\n", "model\n")):
            signs.add("user_prefix")
        if turn.role == "model" and turn.text != turn.text.strip():
            signs.add("trimmed_answers")
        if turn.role == "user" and has_examples(turn.text):
            signs.add("few_shot")
    return signs


def systems(conversations: Sequence[Conversation]) -> dict[str, Any]:
    """``{"share": of rows with one, "distinct", "top": [{"text", "rows"}]}``, texts shortened."""
    counts = Counter(c.system.strip() for c in conversations if c.system and c.system.strip())
    top = [{"text": shorten(text, 160), "rows": rows} for text, rows in counts.most_common(5)]
    rows = max(len(conversations), 1)
    return {"share": counts.total() / rows, "distinct": len(counts), "top": top}


def fingerprints(conversations: Iterable[Conversation]) -> set[int]:
    """Of whole rows: equal for the same texts in the same roles. Holds within one process."""
    return {hash(tuple(_texts(conversation))) for conversation in conversations}


def _texts(conversation: Conversation) -> list[tuple[str, str]]:
    system = ("system", (conversation.system or "").strip())
    return [system, *((turn.role, turn.text.strip()) for turn in conversation.turns)]


def repeated_answer(conversations: Sequence[Conversation]) -> dict[str, Any]:
    """The most frequent last answer: ``{"text", "rows", "share"}``; ``{}`` without answers."""
    counts = Counter(text for c in conversations if (text := answer(c).strip()))
    if not counts:
        return {}
    text, rows = counts.most_common(1)[0]
    return {"text": shorten(text), "rows": rows, "share": rows / counts.total()}


def label_counts(conversations: Sequence[Conversation]) -> Counter[str] | None:
    """How often each last answer occurs, if they look like labels, else ``None``.

    Labels are at most ``MAX_LABELS`` distinct answers, of at most ``MAX_LABEL_WORDS`` words, on
    at least 20 rows, and no more of them than a twentieth of the rows (two are always allowed).
    """
    counts: Counter[str] = Counter()
    for conversation in conversations:
        text = answer(conversation).strip()
        counts[text] += 1
        if len(counts) > MAX_LABELS or len(text.split(None, MAX_LABEL_WORDS)) > MAX_LABEL_WORDS:
            return None
    few = len(counts) <= max(2, MAX_LABEL_SHARE * counts.total())
    return counts if few and counts.total() >= 20 and "" not in counts else None


def labels(sets: dict[str, Sequence[Conversation]]) -> dict[str, Any] | None:
    """Balance of the labels by set, if the answers of ``train`` are labels.

    Returns:
      ``{"sets": {name: {"counts", "entropy_bits", "majority", "majority_share"}}, "missing":
      {name: labels of train that it lacks}, "unseen": {name: answers that train lacks}}``.
      ``majority_share`` is the accuracy of always giving the most frequent answer.
    """
    train = label_counts(sets.get("train", ()))
    if train is None:
        return None
    found: dict[str, Any] = {"sets": {}, "missing": {}, "unseen": {}}
    for name, conversations in sets.items():
        counts = Counter(answer(c).strip() for c in conversations)
        if not counts:
            continue
        majority, rows = counts.most_common(1)[0]
        parts = [count / counts.total() for count in counts.values()]
        found["sets"][name] = {
            "counts": {shorten(text, 60): n for text, n in counts.most_common(MAX_LABELS)},
            "entropy_bits": max(-sum(part * math.log2(part) for part in parts), 0.0),
            "majority": shorten(majority, 60),
            "majority_share": rows / counts.total(),
        }
        missing, unseen = sorted(train.keys() - counts), sorted(counts.keys() - train)
        if missing:
            found["missing"][name] = [shorten(text, 60) for text in missing]
        if unseen:
            found["unseen"][name] = [shorten(text, 60) for text in unseen[:20]]
    return found
