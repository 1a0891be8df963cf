"""Tokenised sets: every example in three flat arrays, made once and kept by content.

A cache entry is a directory of ``.npy`` files whose name is the hash of everything that decides
them: the conversations, the tokenizer, the format, and ``VERSION``. It may be deleted at any time.
"""

import dataclasses
import functools
import hashlib
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from sft.data.chat import encoding
from sft.data.chat.encoding import ANSWER, Example
from sft.data.read.records import Conversation
from sft.data.tokenizer.sentencepiece import Tokenizer
from sft.errors import UserError
from sft.run.progress import Progress

VERSION = 1  # raise it when the same conversations get other ids or kinds
_POOL_FROM = 2**24  # characters; below, starting processes takes longer than they save
_CHUNK = 256  # conversations handed to a process at a time
_ARRAYS = {"tokens": np.int32, "kinds": np.uint8, "starts": np.int64}


@dataclasses.dataclass(frozen=True, eq=False)
class Examples(Sequence[Example]):
    """A sequence of examples without an object for each.

    Attributes:
      tokens: int32 ``[T]``, of all examples one after another.
      kinds: uint8 ``[T]``, see ``sft.data.chat.encoding``.
      starts: int64 ``[n + 1]``; example i is ``tokens[starts[i] : starts[i + 1]]``.
    """

    tokens: np.ndarray
    kinds: np.ndarray
    starts: np.ndarray

    @classmethod
    def from_list(cls, examples: Sequence[Example]) -> "Examples":
        """Copies the examples into flat arrays."""
        starts = np.zeros(len(examples) + 1, np.int64)
        np.cumsum([len(example.tokens) for example in examples], out=starts[1:])
        tokens = [example.tokens for example in examples] or [np.zeros(0)]
        kinds = [example.kinds for example in examples] or [np.zeros(0)]
        return cls(
            np.concatenate(tokens).astype(np.int32, copy=False),
            np.concatenate(kinds).astype(np.uint8, copy=False),
            starts,
        )

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index):
        """Example ``index``, whose arrays are views; of a slice, an ``Examples``."""
        if isinstance(index, slice):
            return self.select(np.arange(len(self))[index])
        index = range(len(self))[index]
        start, stop = self.starts[index], self.starts[index + 1]
        return Example(self.tokens[start:stop], self.kinds[start:stop])

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """int64 ``[n]``: tokens of each example."""
        return np.diff(self.starts)

    @functools.cached_property
    def trained(self) -> np.ndarray:
        """int64 ``[n]``: trained tokens of each example."""
        counts = np.zeros(len(self), np.int64)
        filled = self.lengths > 0  # reduceat gives an empty stretch its first element
        if filled.any():
            starts = self.starts[:-1][filled]
            counts[filled] = np.add.reduceat(self.kinds >= ANSWER, starts, dtype=np.int64)
        return counts

    def select(self, indices: Iterable[int]) -> "Examples":
        """The examples at ``indices``, in that order, copied."""
        indices = np.asarray(indices, np.int64).reshape(-1)
        lengths = self.lengths[indices]
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        places = np.arange(starts[-1]) + np.repeat(self.starts[:-1][indices] - starts[:-1], lengths)
        return Examples(self.tokens[places], self.kinds[places], starts)


def encode_all(
    conversations: Sequence[Conversation],
    tokenizer: Tokenizer,
    format: str,
    train_on: str = "all",
    *,
    workers: int = 0,
    cache: str = "",
) -> Examples:
    """``chat.encode`` of every conversation, in order.

    Args:
      workers: processes to share the work, when it is worth starting them; 0 = this one.
      cache: local directory of earlier results, ``~`` allowed; ``""`` = none. What is found there
        is memory-mapped. A damaged entry is made anew; a directory that cannot be written is
        named once on standard error.

    Raises:
      UserError: what ``chat.encode`` raises, naming the row.
    """
    if not conversations:
        return Examples.from_list([])
    folder = None
    if "://" in cache:
        raise UserError(f'config.data.cache = {cache!r}: expected a local directory, or "".')
    if cache:
        key = _content_hash(conversations, tokenizer, format, train_on)
        folder = Path(cache).expanduser() / key
        found = _load(folder, len(conversations))
        if found is not None:
            return found
    parts = _encoded((tokenizer, format, train_on), conversations, workers)
    tokens, kinds, lengths = (b"".join(part) for part in zip(*parts, strict=True))
    starts = np.concatenate([[0], np.cumsum(np.frombuffer(lengths, np.int64))])
    examples = Examples(np.frombuffer(tokens, np.int32), np.frombuffer(kinds, np.uint8), starts)
    if folder is not None:
        _store(examples, folder)
    return examples


def _encoded(
    how: tuple[Tokenizer, str, str], conversations: Sequence[Conversation], workers: int
) -> Iterator[tuple[bytes, bytes, bytes]]:
    """``_encode_chunk`` of each chunk, in order, in this process or in several."""
    chunks = [conversations[i : i + _CHUNK] for i in range(0, len(conversations), _CHUNK)]
    size = sum(len(turn.text) for chunk in chunks for talk in chunk for turn in talk.turns)
    with Progress(len(conversations), "tokenising", "row", delay=2) as progress:
        if not workers or size < _POOL_FROM:
            results = (_encode_chunk(how, chunk) for chunk in chunks)
            yield from _counted(results, chunks, progress)
            return
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        # Spawned, not forked: the parent may already run threads of JAX.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, context, _start_worker, how) as pool:
            try:
                yield from _counted(pool.map(_encode_in_worker, chunks), chunks, progress)
            finally:
                pool.shutdown(cancel_futures=True)


def _counted(results: Iterable, chunks: Iterable[Sequence], progress: Progress) -> Iterator:
    for result, chunk in zip(results, chunks, strict=True):
        progress.update(len(chunk))
        yield result


def _encode_chunk(
    how: tuple[Tokenizer, str, str], conversations: Sequence[Conversation]
) -> tuple[bytes, bytes, bytes]:
    """Bytes of tokens int32, kinds uint8 and lengths int64."""
    rendered = [encoding.render(conversation, *how) for conversation in conversations]
    lengths = np.array([len(kinds) for _, kinds in rendered], np.int64)
    tokens, kinds = (b"".join(part) for part in zip(*rendered, strict=True))
    return tokens, kinds, lengths.tobytes()


_worker: list = []  # what a process of the pool was started with


def _start_worker(*how) -> None:
    _worker[:] = how


def _encode_in_worker(conversations: Sequence[Conversation]) -> tuple[bytes, bytes, bytes]:
    return _encode_chunk(tuple(_worker), conversations)


def _content_hash(
    conversations: Sequence[Conversation], tokenizer: Tokenizer, format: str, train_on: str
) -> str:
    """Forty hex digits. Every text goes in behind its length, so that no two contents are alike."""
    content = hashlib.blake2b(digest_size=20)
    content.update(repr((VERSION, tokenizer.fingerprint, format, train_on)).encode())
    for conversation in conversations:
        turns, system = conversation.turns, conversation.system
        sizes = [(turn.role, turn.trained, len(turn.text)) for turn in turns]
        text = [repr((sizes, None if system is None else len(system))), system or ""]
        text += [turn.text for turn in turns]
        content.update("".join(text).encode(errors="surrogatepass"))
    return content.hexdigest()


def _load(folder: Path, count: int) -> Examples | None:
    """The cache entry, memory-mapped, or ``None`` when it is absent or not whole."""
    try:
        arrays = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS]
        whole = np.load(folder / "checksums.npy").tolist() == [zlib.crc32(a) for a in arrays]
    except Exception:  # a damaged file can raise anything
        return None
    if not whole or [a.dtype for a in arrays] != [*_ARRAYS.values()]:
        return None
    examples = Examples(*(array.view(np.ndarray) for array in arrays))
    return examples if len(examples) == count else None


def _store(examples: Examples, folder: Path) -> None:
    """Writes under a temporary name and renames: nobody ever sees half an entry."""
    temporary = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        arrays = [getattr(examples, name) for name in _ARRAYS]
        for name, array in zip(_ARRAYS, arrays, strict=True):
            np.save(temporary / f"{name}.npy", array)
        np.save(temporary / "checksums.npy", [zlib.crc32(array) for array in arrays])
        if folder.exists():  # it was not whole, or another process has just made the same
            shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    except OSError as error:
        _warn_once(f"{folder.parent}: tokenised sets are not kept: {error.strerror or error}.")
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


@functools.cache
def _warn_once(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)
