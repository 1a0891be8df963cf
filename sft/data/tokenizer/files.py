"""Which file of a tokenizer is read: the one that is named, or what lies beside the weights."""

import json
from pathlib import Path

from sft.data.tokenizer import hf_json, sentencepiece
from sft.data.tokenizer.gguf_metadata import line, open_file
from sft.data.tokenizer.sentencepiece import UNUSED, Tokenizer
from sft.errors import UserError

MODEL, JSON, ADDED = "tokenizer.model", "tokenizer.json", "added_tokens.json"


def read(path: Path, vocab: int) -> Tokenizer:
    """The tokenizer in a ``.model``, ``.json`` or ``.gguf`` file, or in a folder with one of these.

    Args:
      vocab: tokens that the model has.

    Raises:
      UserError: none there, or one that is not Gemma's.
    """
    if path.suffix == ".gguf":
        return sentencepiece.from_gguf(str(path), vocab)
    if path.suffix == ".json":
        return hf_json.from_json(str(path), vocab)
    if path.suffix == ".model" or not path.is_dir():
        return sentencepiece.load(str(path), vocab)
    found = beside(path, vocab)
    if found is None:
        raise UserError(f"{path}: neither {MODEL} nor {JSON} there.")
    return found


def beside(folder: Path, vocab: int) -> Tokenizer | None:
    """The tokenizer in a folder: ``tokenizer.model`` before ``tokenizer.json``; ``None`` = neither.

    Raises:
      UserError: both are there and have other tokens, or tokens were added to Gemma's.
    """
    model, other = folder / MODEL, folder / JSON
    if not model.exists():
        return hf_json.from_json(str(other), vocab) if other.exists() else None
    found = sentencepiece.load(str(model), vocab)
    if names := added(folder, vocab):
        sentencepiece.check_vocab(
            [*(piece for piece, _, _ in found.pieces()), *names], vocab, str(folder)
        )
    if other.exists():
        _check_same(found, hf_json.tokens(str(other)), model, other)
    return found


def added(path: Path, vocab: int) -> list[str] | None:
    """The tokens beyond those of the model that the tokenizer of weights has.

    Args:
      path: the weights: GGUF, another file, or a folder; of the latter two what lies beside counts.

    Returns:
      ``None`` where there is no tokenizer.

    Raises:
      UserError: a damaged file.
    """
    if path.suffix == ".gguf":
        pieces = sentencepiece.gguf_pieces(str(path))[vocab:]
        return sentencepiece.beyond([piece for piece, _, kind in pieces if kind != UNUSED])
    folder = path if path.is_dir() else path.parent
    if (folder / JSON).exists():
        return sentencepiece.beyond(hf_json.tokens(str(folder / JSON))[vocab:])
    if (folder / ADDED).exists():  # of Transformers' older tokenizers, beside tokenizer.model
        return sentencepiece.beyond(_added(folder / ADDED, vocab))
    return [] if (folder / MODEL).exists() else None


def _added(file: Path, vocab: int) -> list[str]:
    with open_file(str(file)) as opened:
        content = opened.read()
    try:
        return [name for name, index in json.loads(content).items() if index >= vocab]
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{file}: damaged ({line(error)}). Download it again.") from None


def _check_same(found: Tokenizer, names: list[str], model: Path, other: Path) -> None:
    for index, (piece, _, _) in enumerate(found.pieces()):
        name = names[index] if index < len(names) else None
        if name != piece and (name, piece) != ("\t", "<0x09>"):  # as Gemma 2's is published
            raise UserError(
                f"{other}: token {index} is {name!r}, and {piece!r} in {model.name} beside it. Set "
                "config.model.tokenizer to the file that the weights were trained with."
            )
