"""The rules of repeated text, stated as plainly as can be, and random rows to hold them against."""

import itertools

import numpy as np

from sft.data.chat.encoding import ANSWER, CONTEXT, END, SCAFFOLD, Example
from sft.data.dedup import templates
from sft.data.dedup.substring import Options
from sft.data.dedup.windows import Classes


def answers_of(example):
    """(start, stop, tokens) of each run of trained answer tokens."""
    stop, tokens = 0, tuple(example.tokens.tolist())
    for kind, run in itertools.groupby(example.kinds.tolist()):
        start, stop = stop, stop + len([*run])
        if kind == ANSWER:
            yield start, stop, tokens[start:stop]


def windows_of(text, length):
    return [text[k : k + length] for k in range(len(text) - length + 1)]


def form_classes(rows, options, kept):
    """Of each text as short as a form may be, the (row, offset) where it is a window."""
    found, length = {}, min(templates.LENGTH, options.length)
    for i in np.flatnonzero(kept):
        for a, _, text in answers_of(rows[i]):
            for k, window in enumerate(windows_of(text, length)):
                found.setdefault(window, []).append((int(i), a + k))
    return found


def sources_of(places, origins, options, kept):
    """(rows that hold the window, minus the source) of the sources in which it is of a form."""
    for origin in {*origins.tolist()} if options.template_share and len(places) > 1 else ():
        held = len({i for i, _ in places if origins[i] == origin})
        size = int(sum(kept & (origins == origin)))
        if held >= max(options.template_share * size, options.template_rows):
            yield held, -origin


def form_windows(rows, origins, options, kept):
    classes = form_classes(rows, options, kept)
    return {w for w, places in classes.items() if [*sources_of(places, origins, options, kept)]}


def form_tokens(rows, forms):
    """The tokens, (row, offset), that lie in a window of a form."""
    length = len(next(iter(forms), ()))
    return {
        (i, a + k + inside)
        for i, example in enumerate(rows)
        for a, _, text in (answers_of(example) if length else ())
        for k, window in enumerate(windows_of(text, length))
        if window in forms
        for inside in range(length)
    }


def said_of(rows, forms):
    """Of each answer its row, and the offsets and tokens that lie in no form."""
    apart = form_tokens(rows, forms)
    for i, example in enumerate(rows):
        for a, b, _ in answers_of(example):
            offsets = [k for k in range(a, b) if (i, k) not in apart]
            yield i, offsets, tuple(example.tokens[offsets].tolist())


def window_classes(rows, length, kept, forms=frozenset()):
    """Of each text, the windows of what is said beside forms: the row, the place among what the row
    says so, and the offsets of its tokens."""
    found, before = {}, {}
    for i, offsets, text in said_of(rows, forms):
        start = before.get(i, 0)
        before[i] = start + len(text)
        for k, window in enumerate(windows_of(text, length) if kept[i] else ()):
            found.setdefault(window, []).append((i, start + k, tuple(offsets[k : k + length])))
    return found


def apart(places, length):
    """The most of these places that do not overlap."""
    count, last = 0, (-1, 0)
    for i, place in sorted(places):
        if i > last[0] or place >= last[1]:
            count, last = count + 1, (i, place + length)
    return count


def is_copy(place, places, groups, options):
    """The window rule."""
    i, offset, _ = place
    places = [(j, other) for j, other, _ in places]
    if options.keep == "none" and options.scope == "group":
        return len({groups[j] for j, _ in places}) > options.max_copies
    if options.keep == "none":
        return apart(places, options.length) > options.max_copies
    if options.scope == "group":
        lower = {groups[j] for j, _ in places if groups[j] < groups[i]}
        return len(lower) >= options.max_copies
    earlier = [(j, o) for j, o in places if j < i or (j == i and o + options.length <= offset)]
    return apart(earlier, options.length) >= options.max_copies


def turn_copies(rows, groups, options, kept, forms):
    """(row, start, stop, rows of the first copy) of the whole answers that are copies."""
    apart, turns = form_tokens(rows, forms), []
    for i in np.flatnonzero(kept):
        kinds = [SCAFFOLD, *rows[i].kinds, SCAFFOLD]
        for a, b, text in answers_of(rows[i]):
            beside = sum((i, k) not in apart for k in range(a, b))
            if beside >= options.length and CONTEXT not in (kinds[a], kinds[b + 1]):
                turns.append((int(i), a, b, text))
    for i, a, b, text in turns:
        holders = {j for j, _, _, other in turns if other == text}
        earlier = {j for j in holders if (groups[j], j) < (groups[i], i)}
        count = len(holders) - 1 if options.keep == "none" else len(earlier)
        if count >= options.max_copies:
            yield i, a, b, min(holders, key=lambda j: (groups[j], j))


def stated(rows, groups, origins, options, kept=None, forms=None):
    """The tokens, (row, offset), that the rules call repeated."""
    kept = np.ones(len(rows), bool) if kept is None else kept
    if forms is None:
        forms = form_windows(rows, origins, options, kept)
    repeated = set()
    for places in window_classes(rows, options.length, kept, forms).values():
        for place in places:
            if is_copy(place, places, groups, options):
                repeated |= {(place[0], k) for k in place[2]}
    if options.whole_turns and options.scope == "group":
        for i, a, b, _ in turn_copies(rows, groups, options, kept, forms):
            repeated |= {(i, k) for k in range(a, b)}
    for i in np.flatnonzero(kept):
        for a, b, _ in answers_of(rows[i]):
            has_end = b < len(rows[i].kinds) and rows[i].kinds[b] == END
            if has_end and all((i, k) in repeated for k in range(a, b)):
                repeated.add((int(i), b))
    return repeated


def lists_of(dropped, found):
    """All that a policy decides, with the types of its arrays, to be compared."""
    arrays = dropped, found.rows, found.starts, found.stops, found.owners
    return [(str(array.dtype), array.tolist()) for array in arrays], found.templates


def tokens_of(found):
    """The tokens, (row, offset), in the spans; which are in order."""
    spans = list(zip(found.rows, found.starts, found.stops, strict=True))
    for before, after in itertools.pairwise(spans):
        assert before[0] < after[0] or (before[0] == after[0] and before[2] <= after[1])
    assert all(a < b for _, a, b in spans)
    return {(int(i), k) for i, a, b in spans for k in range(a, b)}


def plain_classes(corpus, length, *_):
    """An engine in a few lines, quick on few tokens: five classes to a batch."""
    found = {}
    tokens = corpus.tokens.tolist()
    for start, stop in itertools.pairwise(corpus.starts.tolist()):
        for k in range(start, stop - length + 1):
            found.setdefault(tuple(tokens[k : k + length]), []).append(k)
    several = [places for places in found.values() if len(places) > 1]
    for batch in itertools.batched(several, 5):
        starts = np.cumsum([0, *map(len, batch)])
        yield Classes(np.concatenate(batch), starts)


def random_case(rng, forms=True, **options):
    """Rows over a small alphabet, groups and sources in any order, options that matter."""
    alphabet, length = rng.integers(1, 4), int(rng.integers(1, 5))
    rows = []
    for _ in range(rng.integers(1, 7)):
        size = rng.integers(0, 12)
        if rng.random() < 0.2:
            kinds = rng.choice([SCAFFOLD, CONTEXT, ANSWER, ANSWER, ANSWER, END], size)
        else:
            ends = np.sort(rng.integers(0, size + 1, 2))
            turns = [np.full(n, ANSWER) for n in np.diff([0, *ends, size])]
            kinds = np.concatenate([[SCAFFOLD, *turn, END] for turn in turns])
        tokens = rng.integers(0, alphabet, len(kinds)).astype(np.int32)
        rows.append(Example(tokens, kinds.astype(np.uint8)))
        if rng.random() < 0.3:
            rows.append(rows[rng.integers(len(rows))])
    count = len(rows)
    drawn = {
        "length": length,
        "max_copies": int(rng.choice([1, 1, 2, 3])),
        "whole_turns": bool(rng.random() < 0.7),
        "template_share": float(rng.choice([0, 0, 0.4, 0.8])) * forms,
        "template_rows": int(rng.integers(1, 4)),
    }
    groups, origins = rng.integers(0, 4, count), rng.integers(0, 2, count)
    return rows, groups, origins, Options(**drawn | options)
