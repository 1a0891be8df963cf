"""Windows of ``length`` tokens that occur more than once, by either of two exact engines.

Both find the same classes:

    suffix_array   libdivsufsort; about 16 bytes of memory per token
    hash           rolling hashes, sorted in as many passes as the memory asks for, then verified
"""

from collections.abc import Iterator

from sft.data.dedup import hash_windows, suffix_array
from sft.data.dedup.windows import Classes, Corpus
from sft.errors import UserError

ENGINES = ("suffix_array", "hash")
MEMORY = 2**30  # bytes that the hash engine may use, unless it is given others


def classes(
    corpus: Corpus, length: int, engine: str = "suffix_array", memory: int = MEMORY
) -> Iterator[Classes]:
    """Every class of equal windows with at least two members once, whole, in some batch.

    Both engines give the same classes, in different order and batches. A batch is small, unless
    one class is large.

    Args:
      length: tokens of a window.
      memory: bytes that the hash engine may use beside the corpus and the batch it has given out,
        see ``hash_windows.classes``. The suffix array takes what it needs.

    Raises:
      UserError: ``length``, ``engine`` or ``memory`` is not usable.
    """
    if length < 1:
        raise UserError(
            f"deduplication: windows of {length} tokens, expected 1 or more. Set the length to "
            "50, for example."
        )
    if engine not in ENGINES:
        raise UserError(
            f"deduplication: unknown engine {engine!r}, expected one of {', '.join(ENGINES)}. "
            "Choose one of them."
        )
    if engine == "suffix_array":
        return suffix_array.classes(corpus, length)
    least = hash_windows.least_memory(length)
    if memory < least and corpus.windows(length):
        raise UserError(
            f"deduplication: {memory} bytes of memory for windows of {length} tokens, expected "
            f"{least} or more. Raise the memory of the hash engine."
        )
    return hash_windows.classes(corpus, length, memory)
