"""``tokenizer.json`` as the SentencePiece model that it was made from.

Transformers 5 saves no ``tokenizer.model``. Its file lists every merge that SentencePiece could do,
best piece first, so the scores of the pieces can be had from it, and the model that results cuts
every text alike: that the list is complete and in such an order is checked when it is read, and so
is everything around the model that would change text. Here too, text never becomes control: the
pieces that steer are control pieces of the model (see ``sft.data.tokenizer.sentencepiece``), and
the library ``tokenizers``, which looks for them in text, is not asked.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from sft.data.tokenizer.gguf_metadata import line, open_file
from sft.data.tokenizer.sentencepiece import (
    BYTE,
    LFS,
    NORMAL,
    USER_DEFINED,
    Tokenizer,
    beyond,
    check_vocab,
    from_pieces,
)
from sft.errors import UserError

Piece = tuple[str, float, int]  # as ``from_pieces`` takes them

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_SPACES = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
# In text without spaces, which the normalizer leaves, this cuts nothing.
_CUTS_NOTHING = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious"}
_METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": False}
_MODEL = {
    "type": "BPE",
    "unk_token": "<unk>",
    "byte_fallback": True,
    "dropout": None,
    "continuing_subword_prefix": None,
    "end_of_word_suffix": None,
    "ignore_merges": False,
}


def from_json(path: str, expected_vocab: int | None = None) -> Tokenizer:
    """Reads a ``tokenizer.json`` of Gemma.

    Args:
      expected_vocab: tokens that the model has; image tokens beyond them are dropped.

    Raises:
      UserError: missing, damaged, not Gemma's, or with tokens beyond ``expected_vocab``, which it
        names.
    """
    raw = _read(path)
    names = _tokens(raw, path)
    limit = expected_vocab or len(raw["model"]["vocab"])
    if beyond(names[limit:]):
        check_vocab(names, limit, path)
    _check_around(raw, path)
    return from_pieces(_pieces(raw, names[:limit], path), path)


def tokens(path: str) -> list[str]:
    """The token of each id, added ones too.

    Raises:
      UserError: missing or damaged.
    """
    return _tokens(_read(path), path)


def _read(path: str) -> dict[str, Any]:
    with open_file(path) as file:
        content = file.read()
    if content.startswith(LFS):
        raise UserError(f"{path}: a Git LFS pointer, not the file. Run `git lfs pull` there.")
    try:
        raw = json.loads(content)
        model = raw["model"]
        if model.get("type") != "BPE" or not isinstance(model["vocab"], dict):
            raise UserError(f"{path}: model {model.get('type')!r:.40}, expected BPE: not Gemma's.")
        if not isinstance(model["merges"], list) or not isinstance(raw["added_tokens"], list):
            raise TypeError("merges and added_tokens are to be lists")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {line(error)}"
        raise UserError(f"{path}: not a tokenizer.json of Gemma ({reason}).") from None
    return raw


def _tokens(raw: dict[str, Any], path: str) -> list[str]:
    vocabulary = raw["model"]["vocab"]
    found = {index: piece for piece, index in vocabulary.items() if type(index) is int}
    try:
        for token in raw["added_tokens"]:
            index, content = token["id"], token["content"]
            if type(index) is not int or found.setdefault(index, content) != content:
                raise ValueError(f"{content!r:.40} and {found.get(index)!r:.40} share an id")
        if len(found) < len(vocabulary) or sorted(found) != list(range(len(found))):
            raise ValueError("the ids of its tokens are not 0, 1, 2, …")
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path}: damaged ({line(error)}).") from None
    return [found[index] for index in range(len(found))]


def _check_around(raw: dict[str, Any], path: str) -> None:
    """What the library does before and in the model is what SentencePiece does."""
    spaces = raw.get("normalizer")
    if isinstance(spaces, dict) and spaces.get("type") == "Sequence":
        parts = spaces.get("normalizers")
        spaces = parts[0] if isinstance(parts, list) and len(parts) == 1 else spaces
    cuts = raw.get("pre_tokenizer")
    meta = spaces is None and _within(_METASPACE, cuts)
    fits = meta or (_within(_SPACES, spaces) and (cuts is None or _within(_CUTS_NOTHING, cuts)))
    settings = {key: raw["model"].get(key, value) for key, value in _MODEL.items()}
    wrong = [key for key, value in _MODEL.items() if (settings[key] or None) != (value or None)]
    if fits and not wrong:
        return
    what = f"model.{wrong[0]} = {settings[wrong[0]]!r:.60}" if wrong else (
        f"normalizer {spaces!r:.80} and pre_tokenizer {cuts!r:.80}")  # fmt: skip
    raise UserError(
        f"{path}: {what} would cut text otherwise than Gemma's tokenizer. Use the file that was "
        "published with the model."
    )


def _within(part: dict[str, Any], whole: Any) -> bool:
    return isinstance(whole, dict) and all(whole.get(key) == part[key] for key in part)


def _pieces(raw: dict[str, Any], names: list[str], path: str) -> list[Piece]:
    added = {token["content"] for token in raw["added_tokens"]}
    kinds = [_kind(name, added) for name in names]
    if "<0x09>" not in names and "\t" in names:  # Gemma 2: the tab is spelt by its byte
        tab = names.index("\t")
        names, kinds = [*names[:tab], "<0x09>", *names[tab + 1 :]], [*kinds]
        kinds[tab] = BYTE
    if kinds.count(BYTE) != 256:
        raise UserError(f"{path}: {kinds.count(BYTE)} of 256 byte tokens: not Gemma's tokenizer.")
    ids = {name: index for index, (name, kind) in enumerate(zip(names, kinds, strict=True))
           if kind == NORMAL and index > 3}  # fmt: skip
    order = _order(raw["model"]["merges"], ids, path)
    if order == sorted(order, key=ids.__getitem__):  # as published: the score is the place by id
        first = min(ids.values(), default=0)
        scores = {name: float(first - index) for name, index in ids.items()}
    else:
        scores = dict.fromkeys(ids, -float(len(order)))
        scores |= {name: -float(place) for place, name in enumerate(order)}
    return [(name, scores.get(name, 0.0), kind) for name, kind in zip(names, kinds, strict=True)]


def _kind(name: str, added: set[str]) -> int:
    if _BYTE.fullmatch(name):
        return BYTE
    return USER_DEFINED if name in added else NORMAL


def _order(merges: list, ids: dict[str, int], path: str) -> list[str]:
    """The pieces that are made of others, best first.

    Raises:
      UserError: merges that SentencePiece would not do, or not in an order by pieces.
    """
    try:
        pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in merges]
        made = [(left, right) for left, right in pairs if _is_made(left, right, ids)]
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: damaged merges ({line(error)}).") from None
    wanted = set(_possible(ids))
    if missing := len(wanted.difference(made)):
        raise UserError(
            f"{path}: {missing} of {len(wanted)} merges are missing: not Gemma's tokenizer, or "
            "damaged. Use the file that was published with the model."
        )
    order: list[str] = []
    for left, right in made:
        if not order or order[-1] != left + right:
            order.append(left + right)
    if len(set(order)) < len(order):
        raise UserError(
            f"{path}: the merges of a piece do not stand together: not Gemma's tokenizer. Use the "
            "file that was published with the model."
        )
    return order


def _is_made(left: str, right: str, ids: dict[str, int]) -> bool:
    return left in ids and right in ids and left + right in ids


def _possible(ids: dict[str, int]) -> Iterator[tuple[str, str]]:
    """Every pair of pieces that together are a third."""
    for piece in ids:
        for cut in range(1, len(piece)):
            if piece[:cut] in ids and piece[cut:] in ids:
                yield piece[:cut], piece[cut:]
