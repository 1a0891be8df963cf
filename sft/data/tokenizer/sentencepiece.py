"""Gemma's SentencePiece tokenizer, from a ``.model`` file or rebuilt from GGUF metadata.

``sft.data.tokenizer.hf_json`` rebuilds it from a ``tokenizer.json``.

Text is never control. A user who writes ``<end_of_turn>``, ``<bos>``, ``<mask>`` or ``<unused7>``
gets the ordinary pieces that spell it, and decoding gives the text back. The published models
match such strings as single ids (they are marked USER_DEFINED), which would let a data row end its
own turn. Here every USER_DEFINED piece other than a whitespace run or an HTML tag, and every piece
of the form ``<|turn>``, ``<turn|>`` or ``<|think|>`` that Gemma 4 steers with, is retyped CONTROL
before SentencePiece sees the model, and SentencePiece never produces a CONTROL piece from text. So
the guarantee holds by construction and costs nothing per call. Everything else tokenizes as in the
published model. Control ids are only ever placed by ``sft.data.chat.encoding``.

U+2581 is how SentencePiece spells a space: written literally in text, it decodes to a space.

Words are tokenized once and remembered (``sft.data.tokenizer.words``), unless a check at load finds
a piece that reaches over the edge of a word, or a normalizer that changes text.
"""

import hashlib
import re
from array import array
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from sft.data.tokenizer.gguf_metadata import gguf_metadata, line, open_file
from sft.data.tokenizer.words import Words, crosses, ids_of
from sft.errors import UserError

# Values of SentencePiece's ModelProto.SentencePiece.Type; GGUF stores the same numbers.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6

LFS = b"version https://git-lfs"  # how a file starts that Git has not fetched
# Padding, and tokens in whose place the embeddings of images or sounds are put: no text has them.
_NO_TEXT = re.compile(r"<(image|audio)_soft_token>|\[PAD\d*\]|<pad_?\d+>")
_RESERVED = ("<pad>", "<eos>", "<bos>", "<unk>")  # ids 0, 1, 2, 3 in every Gemma
_TURNS = (("<start_of_turn>", "<end_of_turn>"), ("<|turn>", "<turn|>"))  # up to Gemma 3; Gemma 4
_STEERING = re.compile(r"""<(start|end)_of_turn>|<\|[a-z_"]+\|?>|<[a-z_]+\|>""")
_ORDINARY = re.compile(  # USER_DEFINED pieces that stay atomic in text
    r"[\s▁]+|</?(table|caption|thead|tbody|tfoot|tr|th|td|h[1-6]|blockquote|strong|em|b|i|u|s|sub"
    r"|sup|code|a|html|body|img|span|bbox|ul|li|div|iframe|footer)>"
)


class Tokenizer:
    """Text to ids and back.

    Attributes:
      model: the serialized ModelProto.
      vocab_size: number of pieces; every id is below it.
      pad_id, eos_id, bos_id: 0, 1, 2.
      turn_pieces: ``<start_of_turn>``, ``<end_of_turn>``; in Gemma 4 ``<|turn>``, ``<turn|>``.
      start_of_turn_id, end_of_turn_id: 105 and 106 in Gemma 3 and 4, 106 and 107 in Gemma 2.
      fingerprint: first 12 hex digits of the SHA-256 of the model bytes.
      source: what errors call it.
    """

    def __init__(self, model: bytes, source: str = "tokenizer"):
        """Args: ``model``: serialized ModelProto. ``source``: what errors call it.

        Raises:
          UserError: not a SentencePiece model, or not one of Gemma's.
        """
        import sentencepiece

        self.model, self.source = model, source
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            protected, cuttable = _protect(model)
            self._processor.load_from_serialized_proto(protected)
        except (ValueError, RuntimeError) as error:
            raise UserError(f"{source}: not a SentencePiece model ({line(error)}).") from None
        self._words = Words(self._processor.encode) if cuttable else None
        self.fingerprint = hashlib.sha256(model).hexdigest()[:12]
        self.vocab_size: int = self._processor.vocab_size()
        for index, piece in enumerate(_RESERVED):
            if self.vocab_size <= index or self._processor.id_to_piece(index) != piece:
                raise UserError(f"{source}: piece {index} is not {piece!r}: not a Gemma tokenizer.")
        self.pad_id, self.eos_id, self.bos_id = 0, 1, 2
        self.turn_pieces = next((p for p in _TURNS if self.has_control(p[0])), _TURNS[0])
        for piece in self.turn_pieces:
            if not self.has_control(piece):
                raise UserError(f"{source}: no piece {piece!r}: not a Gemma tokenizer.")
        self.start_of_turn_id, self.end_of_turn_id = map(
            self._processor.piece_to_id, self.turn_pieces
        )

    def pieces(self) -> list[tuple[str, float, int]]:
        """Piece, score and type of each id, as published: before text was kept from control."""
        proto = _schema().ModelProto()
        proto.ParseFromString(self.model)
        return [(piece.piece, piece.score, piece.type) for piece in proto.pieces]

    def __reduce__(self) -> tuple:
        return Tokenizer, (self.model, self.source)

    def encode(self, text: str) -> list[int]:
        """Ids of ``text`` without ``<bos>``; never a control id, whatever the text says."""
        return ids_of(self._processor.encode, text)

    def encode_array(self, text: str) -> np.ndarray:
        """The same ids as int32 ``[n]``, read-only, several times sooner."""
        return np.frombuffer(self.encode_bytes(text), np.int32)

    def encode_bytes(self, text: str) -> bytes:
        """The bytes of ``encode_array``."""
        if self._words is None:
            return array("i", self.encode(text)).tobytes()
        return self._words.encode(text)

    def has_control(self, piece: str) -> bool:
        """Whether ``piece`` is one that text cannot produce."""
        return self._processor.is_control(self._processor.piece_to_id(piece))

    def control_bytes(self, piece: str) -> bytes:
        """The int32 id of a control piece as bytes, to be placed among those of text."""
        return array("i", [self._processor.piece_to_id(piece)]).tobytes()

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ``ids``; control ids are left out, invalid UTF-8 becomes U+FFFD."""
        return self._processor.decode([int(i) for i in ids])


def load(path: str, expected_vocab: int | None = None) -> Tokenizer:
    """Reads a SentencePiece ``.model`` file.

    Args:
      expected_vocab: rows of the embedding table; the tokenizer may have fewer pieces (Gemma 2:
        256,000 pieces, 256,128 rows), never more.

    Raises:
      UserError: missing file, not a Gemma SentencePiece model, or too many pieces.
    """
    with open_file(path) as file:
        model = file.read()
    if model.startswith(LFS):
        raise UserError(f"{path}: a Git LFS pointer, not the file. Run `git lfs pull` there.")
    tokenizer = Tokenizer(model, path)
    if expected_vocab and tokenizer.vocab_size > expected_vocab:
        check_vocab([piece for piece, _, _ in tokenizer.pieces()], expected_vocab, path)
    return tokenizer


def from_pieces(pieces: list[tuple[str, float, int]], source: str) -> Tokenizer:
    """The tokenizer of ``(piece, score, type)`` rows in the order of their ids.

    Raises:
      UserError: not pieces of a Gemma tokenizer.
    """
    try:
        model = _model_proto(pieces)
    except (TypeError, ValueError) as error:
        raise UserError(f"{source}: malformed tokenizer: {line(error)}.") from None
    return Tokenizer(model, source)


def beyond(names: Sequence[str]) -> list[str]:
    """Of tokens after the last one of a model those that somebody added: not padding or images."""
    return [name for name in names if not _NO_TEXT.fullmatch(name)]


def from_gguf(path: str, expected_vocab: int | None = None) -> Tokenizer:
    """Rebuilds the tokenizer from the metadata of a GGUF file.

    Padding and image tokens at ids from ``expected_vocab`` on, as multimodal files have them, are
    dropped.

    Raises:
      UserError: missing or malformed file, another kind of tokenizer, or too many pieces.
    """
    pieces = gguf_pieces(path)
    limit = expected_vocab or len(pieces)
    if beyond([piece for piece, _, kind in pieces[limit:] if kind != UNUSED]):
        check_vocab([piece for piece, _, _ in pieces], limit, path)
    return from_pieces(pieces[:limit], path)


def gguf_pieces(path: str) -> list[tuple[str, float, int]]:
    """``(piece, score, type)`` of each id, as a GGUF file has them.

    Raises:
      UserError: missing or malformed file, or another kind of tokenizer.
    """
    metadata = gguf_metadata(path)
    kind = metadata.get("tokenizer.ggml.model")
    if kind != "llama":  # GGUF's name for SentencePiece BPE
        found = "no tokenizer" if kind is None else f"tokenizer {kind!r}"
        raise UserError(f"{path}: {found} in the GGUF metadata; expected Gemma's SentencePiece.")
    columns = [metadata.get(f"tokenizer.ggml.{key}") for key in ("tokens", "scores", "token_type")]
    lengths = {len(column) if isinstance(column, list) else None for column in columns}
    if len(lengths) > 1 or None in lengths:
        raise UserError(f"{path}: tokens, scores and token_type are missing or differ in length.")
    pieces = list(zip(*columns, strict=True))
    if not all(isinstance(piece, str) for piece, _, _ in pieces):
        raise UserError(f"{path}: malformed tokenizer in the metadata: tokens that are not text.")
    return pieces


def _model_proto(pieces: list[tuple[str, float, int]]) -> bytes:
    """Serialized ModelProto of ``(piece, score, GGUF type)`` rows, in id order."""
    pb = _schema()
    model = pb.ModelProto()
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    trainer.model_type = pb.TrainerSpec.BPE
    trainer.vocab_size = len(pieces)
    trainer.byte_fallback = True
    trainer.pad_id, trainer.eos_id, trainer.bos_id, trainer.unk_id = 0, 1, 2, 3
    trainer.pad_piece, trainer.eos_piece, trainer.bos_piece, trainer.unk_piece = _RESERVED
    normalizer.name = "identity"
    normalizer.add_dummy_prefix = False
    normalizer.remove_extra_whitespaces = False
    normalizer.escape_whitespaces = True
    for index, (piece, score, kind) in enumerate(pieces):
        if index <= 3:
            kind = UNKNOWN if index == 3 else CONTROL
        elif kind in (CONTROL, USER_DEFINED):  # GGUF writers disagree on which; _protect decides
            kind, piece = USER_DEFINED, piece.replace(" ", "▁")
        model.pieces.add(piece=piece, score=score, type=kind)
    return model.SerializeToString(deterministic=True)


def _protect(model: bytes) -> tuple[bytes, bool]:
    """Retypes as CONTROL what text must not produce; see the module docstring.

    Returns:
      The model, and whether its texts may be cut into words.

    Raises:
      ValueError: not a ModelProto.
    """
    from google.protobuf.message import DecodeError

    proto = _schema().ModelProto()
    try:
        proto.ParseFromString(model)
    except DecodeError as error:
        raise ValueError(str(error)) from None
    trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
    changes = normalizer.add_dummy_prefix or normalizer.remove_extra_whitespaces
    changes = changes or normalizer.precompiled_charsmap or trainer.treat_whitespace_as_suffix
    cuttable = trainer.model_type == trainer.BPE and not changes and normalizer.escape_whitespaces
    for piece in proto.pieces:
        text, kind = piece.piece, piece.type
        if (kind == USER_DEFINED and not _ORDINARY.fullmatch(text)) or _STEERING.fullmatch(text):
            piece.type = CONTROL
        elif kind != CONTROL and crosses(text):
            cuttable = False
    return proto.SerializeToString(), cuttable


def _schema() -> Any:
    """SentencePiece's protobuf classes, which exist at run time only."""
    from sentencepiece import sentencepiece_model_pb2

    return sentencepiece_model_pb2


def check_vocab(names: Sequence[str], expected: int, source: str) -> None:
    """Refuses more tokens than a model has.

    Raises:
      UserError: names those beyond.
    """
    if len(names) > expected:
        more = [repr(name) for name in beyond(names[expected:]) or names[expected:]]
        shown = ", ".join(more[:4]) + (", …" if len(more) > 4 else "")
        raise UserError(
            f"{source}: {len(names)} pieces, but the model has {expected} embedding rows: the "
            f"tokenizer of another model, or one to which {len(more)} tokens were added ({shown}). "
            "Set model.tokenizer or model.name; or use tokenizer and weights from before they were "
            "added, and write such markers as ordinary text."
        )
