"""The tokenizer as Hugging Face keeps it, built from Gemma's SentencePiece model.

Transformers' own conversion of a ``tokenizer.model`` loses runs of spaces and ``<bos>``. Here:

* Every merge that SentencePiece could do is listed, in the order in which it would: by the score of
  the piece that comes of it.
* Pieces that SentencePiece takes whole (runs of spaces and newlines, HTML tags, control pieces) are
  added tokens. They are looked for before anything else is done, but those of spaces once spaces
  have become U+2581, for a U+2581 in the text is a space too.

So a text is cut as by SentencePiece, but that control pieces written out in it are control, which
the chat template relies on. What comes from users must be cleaned of them first; ``sft`` itself
never reads them in text (``sft.data.tokenizer.sentencepiece``).
"""

import json
from pathlib import Path
from typing import Any

from sft.data.tokenizer.sentencepiece import CONTROL, NORMAL, UNKNOWN, USER_DEFINED, Tokenizer
from sft.export import chat_template

SPACE = "▁"


def write(tokenizer: Tokenizer, folder: Path, longest: int, template: str = "") -> None:
    """``tokenizer.json`` and its configuration, the chat template, and ``tokenizer.model``.

    Args:
      longest: tokens of a text that the model is for.
      template: of chats, Jinja; ``""`` = the plain turns of the tokenizer's models.
    """
    template = template or chat_template.plain(tokenizer)
    made = build(tokenizer)
    (folder / "tokenizer.json").write_text(json.dumps(made, ensure_ascii=False))
    described = json.dumps(settings(longest, template), indent=2)
    (folder / "tokenizer_config.json").write_text(described + "\n")
    (folder / "chat_template.jinja").write_text(template)
    (folder / "tokenizer.model").write_bytes(tokenizer.model)


def settings(longest: int, template: str) -> dict[str, Any]:
    """``tokenizer_config.json``. The class is the one that takes ``tokenizer.json`` as it is."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "add_bos_token": True,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "spaces_between_special_tokens": False,
        "padding_side": "left",
        "model_max_length": longest,
        "chat_template": template,
    }


def build(tokenizer: Tokenizer) -> dict[str, Any]:
    """``tokenizer.json`` as an object, in the format of the library ``tokenizers``."""
    rows = tokenizer.pieces()
    added = []
    vocabulary = {}
    for index, (piece, _, kind) in enumerate(rows):
        vocabulary[piece] = index
        if kind in (CONTROL, USER_DEFINED, UNKNOWN):
            added.append(_added(index, piece, special=tokenizer.has_control(piece)))
    bos = {"SpecialToken": {"id": "<bos>", "type_id": 0}}
    one, two = ({"Sequence": {"id": x, "type_id": i}} for i, x in enumerate("AB"))
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [bos, one],
            "pair": [bos, one, bos, two],
            "special_tokens": {
                "<bos>": {"id": "<bos>", "ids": [tokenizer.bos_id], "tokens": ["<bos>"]}
            },
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": merges(rows),
        },
    }


def merges(rows: list[tuple[str, float, int]]) -> list[tuple[str, str]]:
    """Every pair of pieces that joins to a third, in the order of SentencePiece: best score first.

    Args:
      rows: piece, score and kind, by id.
    """
    ids = {piece: index for index, (piece, _, kind) in enumerate(rows) if kind == NORMAL}
    found = []
    for piece, index in ids.items():
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in ids and right in ids:
                found.append((-rows[index][1], index, ids[left], ids[right]))
    found.sort()
    return [(rows[left][0], rows[right][0]) for _, _, left, right in found]


def _added(index: int, content: str, *, special: bool) -> dict[str, Any]:
    flags: dict[str, bool] = dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
    flags |= {"normalized": SPACE in content, "special": special}
    return {"id": index, "content": content, **flags}
