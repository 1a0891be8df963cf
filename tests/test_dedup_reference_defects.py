"""What was seen to go wrong in google-research/deduplicate-text-datasets (commit 4e9888a).

Each test has the input on which the reference fails, given to both engines. Texts are code points,
one a token, unless the test is about tokens.
"""

import os
import subprocess
import sys

import numpy as np
import pytest

from sft.data.dedup import engines, hash_windows, suffix_array
from sft.data.dedup.windows import Corpus

ENGINES = pytest.mark.parametrize("engine", engines.ENGINES)
THREADS = ("aaaaaaaaaaaabbbccccc", "aaaaaaaaaaaaccccc")


def corpus_of(*spans) -> Corpus:
    tokens = [ord(token) if isinstance(token, str) else token for span in spans for token in span]
    starts = np.cumsum([0, *map(len, spans)], dtype=np.int64)
    return Corpus(np.array(tokens, np.int32), starts)


def ranges(batches, length: int) -> list[tuple[int, int]]:
    """Union of the windows, as the reference's ``collect`` gives it: touching ranges are one."""
    found: list[tuple[int, int]] = []
    for position in sorted(p for batch in batches for p in batch.positions.tolist()):
        if found and position <= found[-1][1]:
            found[-1] = (found[-1][0], position + length)
        else:
            found.append((position, position + length))
    return found


def members(batches) -> list[list[int]]:
    return sorted(
        part.tolist()
        for batch in batches
        for part in np.split(batch.positions, batch.starts[1:-1])
        if len(part)
    )


def test_no_split_of_the_work_loses_the_last_suffixes():
    """There, one thread finds [0, 12) and [15, 37), and eight lose the c's at both ends."""
    whole = [(0, 12), (15, 37)]
    for corpus in (corpus_of(*THREADS), corpus_of("".join(THREADS))):
        for parts in range(1, 40):
            assert ranges(suffix_array.classes(corpus, 3, block=parts), 3) == whole
            for chunk in (1, 2, 7, 40):
                found = hash_windows.in_passes(corpus, 3, parts, chunk, block=parts)
                assert ranges(found, 3) == whole


PROGRAM = """
import numpy as np
from sft.data.dedup import engines, windows
tokens = np.random.default_rng(0).integers(0, 3, 2000, dtype=np.int32)
corpus = windows.Corpus(tokens, np.array([0, 900, 2000]))
for engine in engines.ENGINES:
    batches = list(engines.classes(corpus, 6, engine))
    parts = [p.tolist() for b in batches for p in np.split(b.positions, b.starts[1:-1])]
    print(sorted(parts))
"""


def test_the_number_of_threads_changes_nothing():
    """There, ``--num-threads`` does; here it is what OpenMP is told."""
    outputs = set()
    for threads in ("1", "3", "8"):
        environment = os.environ | {"OMP_NUM_THREADS": threads}
        command = [sys.executable, "-c", PROGRAM]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        outputs |= set(run.stdout.splitlines())
    assert len(outputs) == 1
    assert len(outputs.pop()) > 1000


@ENGINES
def test_what_lies_between_documents_is_no_part_of_a_match(engine):
    """There, 97 bytes in common and three zeros of a separator's counter match at 100."""
    text = "".join(chr(97 + i % 26) for i in range(97))
    corpus = corpus_of("1" + text, "2" + text, "3" + text)
    assert members(engines.classes(corpus, 98, engine)) == []
    assert members(engines.classes(corpus, 97, engine)) == [[1, 99, 197]]


@ENGINES
def test_no_range_ends_inside_a_character(engine):
    """There, two characters that share two of their three bytes extend a match by those two."""
    one, other = "日本", "日木"
    assert one.encode()[:5] == other.encode()[:5]
    found = members(engines.classes(corpus_of(one, other), 1, engine))
    assert found == [[0, 2]]
    assert members(engines.classes(corpus_of(one, other), 2, engine)) == []


@ENGINES
def test_every_class_says_which_copy_is_first(engine):
    """There, one document of a letter a thousand times is wiped out; a copy must stay, so classes
    come whole and in order: the first window, and those that do not overlap it, can be told."""
    (batch,) = engines.classes(corpus_of("a" * 1000), 100, engine)
    assert batch.positions.tolist() == list(range(901))
    assert batch.starts.tolist() == [0, 901]


@ENGINES
@pytest.mark.parametrize("length", [7, 99, 100, 101])
def test_the_last_window_of_the_last_document_may_match(engine, length):
    """There, a match that is last in the second file's suffix array ends the program, and one
    check knows no other length than 100."""
    shared = "".join(chr(200 + i) for i in range(length))
    largest = corpus_of("ab" + shared, "c" + shared)
    assert members(engines.classes(largest, length, engine)) == [[2, length + 3]]


@ENGINES
def test_positions_are_exact(engine):
    """There, a cut takes up to six bytes of the separator's width too many."""
    repeated = "a match, in the middle"
    documents = ("before it: " + repeated, repeated + ", and after", "x" + repeated + "y")
    text, size = "".join(documents), len(repeated)
    (found,) = members(engines.classes(corpus_of(*documents), size, engine))
    assert len(found) == 3
    assert {text[position : position + size] for position in found} == {repeated}


@ENGINES
@pytest.mark.parametrize("width", [2, 3])
def test_nothing_matches_at_half_a_token(engine, width):
    """There, a quarter of the ranges of tokenised text begin in the middle of an id."""
    content = np.random.default_rng(width).integers(1, 4, 60 * width, dtype=np.uint8).tobytes()
    shifted = content[1:] + content[:1]

    def ids(content: bytes) -> list[int]:
        return [int.from_bytes(content[i : i + width]) for i in range(0, len(content), width)]

    corpus = corpus_of(ids(content), ids(shifted))  # nearly all of their bytes are in common
    assert members(engines.classes(corpus, 9, engine)) == []
    corpus = corpus_of(ids(content), ids(shifted), ids(content)[9:])
    assert members(engines.classes(corpus, 51, engine)) == [[9, 120]]
