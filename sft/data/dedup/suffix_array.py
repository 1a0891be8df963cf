"""Repeated windows from a suffix array and its table of longest common prefixes.

Ids go in as big-endian bytes, as few as the largest needs: the order of such bytes is that of the
ids, and three bytes an id, which all of Gemma's fit in, sort faster and in less memory than four.
Suffixes that begin inside an id are left out, so that nothing matches at half an id. Suffixes
whose first ``length`` tokens are equal are neighbours.
"""

from collections.abc import Iterator

import numpy as np

from sft.data.dedup import windows
from sft.data.dedup.windows import Classes, Corpus

_BLOCK = 2**18  # suffixes looked at together


def classes(corpus: Corpus, length: int, block: int = _BLOCK) -> Iterator[Classes]:
    """See ``engines.classes``.

    Needs about 16 bytes of memory per token beside the corpus, and 4 more where it is read-only;
    from 715 million tokens on, twice that, as the tables then have 64 bits.
    """
    from pydivsufsort import kasai

    if corpus.windows(length) < 2:
        return
    tokens = np.require(corpus.tokens, np.int32, "CW")  # pydivsufsort refuses read-only arrays
    order = _order(tokens)
    common = kasai(tokens, order)  # of a suffix and the next one in order; 0 for the last
    fits = corpus.fits(length, 0, len(tokens))
    del tokens
    bits = windows.position_bits(len(order))
    start = 0
    while start < len(order):
        stop = _end(common, length, min(start + block, len(order)), block)
        last = common[start:stop] < length  # of those that begin alike
        group = np.cumsum(last) - last
        positions = order[start:stop].astype(np.int64)
        keys = (group << bits | positions)[fits[positions]]
        keys.sort()
        found = windows.grouped(keys.view(np.uint64), bits)
        if len(found):
            yield found
        start = stop


def _order(tokens: np.ndarray) -> np.ndarray:
    """int32 or int64 ``[T]``: the suffixes in order."""
    from pydivsufsort import divsufsort

    packed, width = _packed(tokens)
    suffixes = divsufsort(packed)
    del packed
    order = np.empty(len(tokens), suffixes.dtype)
    filled = 0
    for start in range(0, len(suffixes), _BLOCK):
        part = suffixes[start : start + _BLOCK]
        places = part // width
        whole = places[places * width == part]
        order[filled : filled + len(whole)] = whole
        filled += len(whole)
    return order


def _packed(tokens: np.ndarray) -> tuple[np.ndarray, int]:
    """uint8 ``[T * width]``: the ids in big-endian bytes, and the width of one."""
    width = max(1, (int(tokens.view(np.uint32).max()).bit_length() + 7) // 8)
    four = tokens.astype(">u4").view(np.uint8).reshape(-1, 4)
    return np.ascontiguousarray(four[:, 4 - width :]).reshape(-1), width


def _end(common: np.ndarray, length: int, stop: int, block: int) -> int:
    """The first place from ``stop`` on that does not part suffixes that begin alike."""
    while True:
        ends = common[stop - 1 : stop - 1 + block] < length
        if ends.any():
            return stop + int(ends.argmax())
        stop += block
