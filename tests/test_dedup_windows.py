"""Both engines against brute force, against each other, and against their own settings."""

import collections
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sft.data.dedup import engines, hash_windows, suffix_array
from sft.data.dedup.windows import Classes, Corpus
from sft.errors import UserError

CORPORA = 24_000  # random ones
EDGE_IDS = (0, 1, 255, 256, 65_535, 65_536, 131_071, 131_072, 262_143)


def corpus_of(spans) -> Corpus:
    starts = np.cumsum([0, *map(len, spans)], dtype=np.int64)
    return Corpus(np.array([t for span in spans for t in span], np.int32), starts)


def collected(batches) -> set[tuple[int, ...]]:
    """The classes as a set; each must be ascending, of two or more, and there once."""
    found = []
    for batch in batches:
        assert batch.positions.dtype == batch.starts.dtype == np.int64
        assert batch.starts[0] == 0 and batch.starts[-1] == len(batch.positions)
        found += [tuple(part.tolist()) for part in np.split(batch.positions, batch.starts[1:-1])]
    assert all(len(c) > 1 and list(c) == sorted(set(c)) for c in found)
    assert len(set(found)) == len(found)
    return set(found)


def brute_force(spans, length: int) -> set[tuple[int, ...]]:
    places = collections.defaultdict(list)
    offset = 0
    for span in spans:
        for i in range(len(span) - length + 1):
            places[tuple(span[i : i + length])].append(offset + i)
        offset += len(span)
    return {tuple(each) for each in places.values() if len(each) > 1}


def by_both(spans, length: int) -> set[tuple[int, ...]]:
    found = collected(engines.classes(corpus_of(spans), length, "suffix_array"))
    assert collected(engines.classes(corpus_of(spans), length, "hash")) == found
    return found


@pytest.mark.parametrize("part", range(4))
def test_both_engines_find_what_brute_force_finds(part):
    rng = np.random.default_rng(part)
    repeated = 0
    for _ in range(CORPORA // 4):
        letters, length = rng.integers(1, 5), int(rng.integers(1, 7))
        sizes = rng.integers(0, 13, rng.integers(0, 6))
        spans = [rng.integers(0, letters, size).tolist() for size in sizes]
        capacity, chunk, block = (int(n) for n in rng.integers(1, 40, 3))
        expected, corpus = brute_force(spans, length), corpus_of(spans)
        assert collected(suffix_array.classes(corpus, length, block)) == expected
        found = collected(hash_windows.in_passes(corpus, length, capacity, chunk, block))
        assert found == expected
        repeated += bool(expected)
    assert repeated > CORPORA / 16  # or the corpora would test nothing


@settings(max_examples=150)
@given(
    st.lists(st.lists(st.sampled_from(EDGE_IDS), max_size=20), max_size=8),
    st.integers(1, 6),
    st.integers(1, 100),
    st.integers(1, 30),
    st.integers(1, 30),
)
def test_ids_of_large_vocabularies_whatever_the_passes(spans, length, capacity, chunk, block):
    expected, corpus = brute_force(spans, length), corpus_of(spans)
    assert collected(suffix_array.classes(corpus, length, block)) == expected
    found = collected(hash_windows.in_passes(corpus, length, capacity, chunk, block))
    assert found == expected


@given(st.lists(st.integers(0, 9), max_size=12), st.integers(1, 6), st.data())
def test_windows_that_fit(sizes, length, data):
    corpus = corpus_of([range(size) for size in sizes])
    expected = [left >= length for size in sizes for left in range(size, 0, -1)]
    assert corpus.windows(length) == sum(expected)
    start = data.draw(st.integers(0, len(expected)))
    stop = data.draw(st.integers(start, len(expected)))
    assert corpus.fits(length, start, stop).tolist() == expected[start:stop]


def fibonacci_word(size: int) -> list[int]:
    one, other = [0], [0, 1]
    while len(other) < size:
        one, other = other, other + one
    return other[:size]


@pytest.mark.parametrize("period", [1, 2, 3, 49, 50, 51])
def test_periodic_text(period):
    span = [i % period for i in range(1000)]
    assert by_both([span], 50) == {tuple(range(i, 951, period)) for i in range(period)}


def test_fibonacci_word():
    spans = [fibonacci_word(3000), fibonacci_word(700)]
    found = by_both(spans, 50)
    assert found == brute_force(spans, 50)
    assert len(found) == 51  # as many factors of a length as it has letters, and one


@pytest.mark.parametrize("shared", [49, 50, 51])
@pytest.mark.parametrize("before", [0, 1, 60])
@pytest.mark.parametrize("after", [0, 1, 60])
def test_a_match_at_the_edges_of_spans(shared, before, after):
    common = list(range(1000, 1000 + shared))
    first = [*range(before), *common, *range(200, 200 + after)]
    second = [*range(400, 400 + after), *common, *range(600, 600 + before)]
    there, here = before, len(first) + after
    expected = {(there + i, here + i) for i in range(shared - 49)}
    assert by_both([first, second], 50) == expected


def test_no_match_goes_on_into_the_next_span():
    text = list(range(100))
    assert by_both([text[:49], text[49:], text], 50) == {(i, i + 100) for i in range(49, 51)}
    assert by_both([text[:40], text[40:80], text[:40], text[40:80]], 41) == set()


@pytest.mark.parametrize("step", [2**8, 2**16, 2**17])
def test_ids_that_share_their_lower_bits_are_different(step):
    low = [i % 30 for i in range(100)]
    high = [token + step for token in low]
    apart = brute_force([low], 20)
    assert by_both([low, high], 20) == apart | {tuple(i + 100 for i in c) for c in apart}
    largest = [token + 262_143 - 29 for token in low]
    spans = [largest[:80], low[:20], largest[:80]]
    assert by_both(spans, 20) == brute_force(spans, 20)


def test_a_span_repeated_thousands_of_times():
    span = [5, 6, 7, 8, 9, 10]
    found = by_both([span] * 5000, 4)
    assert found == {tuple(range(i, 30_000, 6)) for i in range(3)}


@pytest.mark.parametrize(
    "spans", [[], [[]], [[], [], []], [[1]], [[1, 1]], [[1, 2, 3], [1, 2, 3]], [[7] * 5, []]]
)
def test_no_window_is_long_enough(spans):
    assert by_both(spans, 6) == set()
    assert by_both(spans, 10**9) == set()


def test_tokens_may_be_memory_mapped_for_reading(tmp_path):
    rng = np.random.default_rng(0)
    span = rng.integers(0, 262_144, 300).tolist()
    corpus = corpus_of([span, span[10:200], [3], span])
    np.save(tmp_path / "tokens.npy", corpus.tokens)
    np.save(tmp_path / "starts.npy", corpus.starts)
    mapped = Corpus(
        np.load(tmp_path / "tokens.npy", mmap_mode="r"),
        np.load(tmp_path / "starts.npy", mmap_mode="r"),
    )
    expected = brute_force([span, span[10:200], [3], span], 50)
    for engine in engines.ENGINES:
        assert collected(engines.classes(mapped, 50, engine)) == expected
    assert np.array_equal(mapped.tokens, corpus.tokens)


@pytest.mark.parametrize("different", [1, 3, 50])
def test_hash_collisions_change_nothing(different, monkeypatch):
    rng = np.random.default_rng(different)
    spans = [rng.integers(0, 3, size).tolist() for size in (40, 0, 60, 2, 30)]
    strong = hash_windows._Hashing.hashes

    def weak(self, start, stop):
        return strong(self, start, stop) % different << 56

    monkeypatch.setattr(hash_windows._Hashing, "hashes", weak)
    for length in range(1, 7):
        for capacity in (1, 20, 1000):
            found = hash_windows.in_passes(corpus_of(spans), length, capacity, 16, 16)
            assert collected(found) == brute_force(spans, length)


def test_upper_bits_tell_windows_apart_that_differ_in_one_token():
    """Below them is the position: windows that only those bits tell apart cost a comparison."""
    spans = [[7] * 50]
    for place in range(50):
        for token in (0, 6, 8, 263, 65_543, 131_079, 262_143):
            spans.append([7] * place + [token] + [7] * (49 - place))
    hashing = hash_windows._Hashing(corpus_of(spans), 50, 2**16)
    ((_, hashes, fits),) = hashing
    assert len(set((hashes[fits] >> 24).tolist())) == len(spans)


def test_the_hash_engine_keeps_to_its_memory():
    rng = np.random.default_rng(0)
    once = rng.integers(0, 262_144, 2_000_000, dtype=np.int32)
    corpus = Corpus(np.concatenate([once, once]), np.arange(0, 4_000_001, 500))
    memory, repeated = hash_windows.least_memory(50), 0
    assert 8 * corpus.windows(50) > memory  # so that it takes passes
    tracemalloc.start()
    try:
        for batch in engines.classes(corpus, 50, "hash", memory):
            repeated += len(batch.positions)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert repeated == corpus.windows(50)
    assert peak <= memory


def test_settings_that_make_no_sense():
    corpus = corpus_of([[1, 2, 3]])
    with pytest.raises(UserError, match="windows of 0 tokens, expected 1 or more"):
        engines.classes(corpus, 0)
    with pytest.raises(UserError, match="unknown engine 'bloom', expected one of suffix_array"):
        engines.classes(corpus, 2, "bloom")
    with pytest.raises(UserError, match="1000 bytes of memory for windows of 2 tokens"):
        engines.classes(corpus, 2, "hash", 1000)


@pytest.mark.parametrize("starts", [[], [1, 3], [0, 2], [0, 2, 1, 3]])
def test_spans_must_cover_the_tokens(starts):
    with pytest.raises(ValueError, match="starts must"):
        Corpus(np.arange(3, dtype=np.int32), np.array(starts, np.int64))


def test_selecting_members_leaves_no_class_of_one():
    pairs = Classes(np.array([1, 5, 2, 3, 9]), np.array([0, 2, 5]))
    left = pairs.select(np.array([True, False, True, False, True]))
    assert left.positions.tolist() == [2, 9] and left.starts.tolist() == [0, 2]
    assert len(pairs.select(np.zeros(5, bool))) == 0
