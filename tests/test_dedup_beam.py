"""The Beam pipeline on a stand-in for Beam; ``test_dedup_on_beam.py`` runs it on Beam itself."""

import dataclasses
import itertools
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import plain_beam
import pytest
from substring_rules import lists_of, plain_classes, random_case
from test_dedup_plan import corpus, same_plans

from sft.data.batches.examples import Examples
from sft.data.chat.encoding import ANSWER
from sft.data.dedup import engines, options, substring
from sft.data.dedup.beam import fingerprints, members, pipeline, shards
from sft.data.dedup.beam import policy as beyond
from sft.data.dedup.beam.policy import Layout
from sft.data.dedup.build import build
from sft.data.dedup.spans import ACTIONS
from sft.data.dedup.substring import Options
from sft.errors import UserError


@pytest.fixture
def plain(monkeypatch):
    """Stand-ins for Beam and for the engines of this machine, which take their time to start."""
    values = {"temp_location": None, "runner": "FnApiRunner"}
    given = SimpleNamespace(get_all_options=lambda: values)
    monkeypatch.setattr(pipeline, "load", lambda: plain_beam)
    monkeypatch.setattr(pipeline, "options", lambda _: given)
    monkeypatch.setattr(engines, "classes", plain_classes)


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("keep", ["first", "none"])
@pytest.mark.parametrize("scope", ["group", "record"])
def test_random_rows_as_on_one_machine(scope, keep, action):
    rng = np.random.default_rng([ord(scope[0]), ord(keep[0]), ord(action[0])])
    drops = spans = listed = 0
    for number in range(70):
        rows, groups, origins, options = random_case(rng, scope=scope, keep=keep)
        how = action, float(rng.choice([0.5, 0.8, 1.0, 2.0])), int(rng.integers(0, 4))
        given = Examples.from_list(rows), groups, origins
        expected = substring.policy(*given, options, *how)
        layout = Layout(int(rng.integers(5, 60)), int(rng.integers(1, 6)))
        plain_beam.SEED[0] = number
        found = beyond.policy(*given, options, *how, layout)
        assert lists_of(*found) == lists_of(*expected), (rows, groups, options, how, layout)
        drops += expected[0].any()
        spans += len(expected[1].rows) > 0
        listed += len(expected[1].templates) > 0
    assert drops > 6 if action != "report" else drops == 0
    assert spans > 6 if action != "drop" else spans == 0
    assert listed > 6


@pytest.mark.usefixtures("plain")
def test_shards_partitions_and_their_order_are_no_matter():
    rng = np.random.default_rng(5)
    for _ in range(25):
        rows, groups, origins, options = random_case(rng, keep="first")
        given = Examples.from_list(rows), groups, origins, options, "mask", 0.6, 2
        results = []
        for tokens, partitions in itertools.product([1, 9, 1000], [1, 7]):
            plain_beam.SEED[0] += 1
            results.append(lists_of(*beyond.policy(*given, Layout(tokens, partitions))))
        assert all(result == results[0] for result in results)


@pytest.mark.usefixtures("plain")
def test_a_plan_does_not_depend_on_the_engine():
    train, held = corpus()
    plans = [
        build(*train, held, options.Options(engine=engine, beam=beam, template_share=share))
        for share in (0.05, 0.0)
        for engine, beam in (("hash", ""), ("beam", ""), ("beam", "--runner=FlinkRunner"))
    ]
    assert len(plans[0].rows) and any(r.code == "substring" for r in plans[0].reasons.values())
    for others in (plans[:3], plans[3:]):
        assert same_plans(others[0], others[1]) and same_plans(others[0], others[2])


@pytest.mark.usefixtures("plain")
def test_nothing_to_look_at():
    none = np.zeros(0, np.int64)
    how = Options(engine="beam"), "mask", 0.8, 8
    dropped, found = substring.policy(Examples.from_list([]), none, none, *how)
    assert dropped.tolist() == found.rows.tolist() == found.templates == []
    empty = Examples(np.zeros(0, np.int32), np.zeros(0, np.uint8), np.zeros(3, np.int64))
    dropped, found = substring.policy(empty, np.arange(2), np.zeros(2, np.int64), *how)
    assert dropped.tolist() == [False, False] and found.rows.tolist() == []


@pytest.mark.parametrize("length", [1, 2, 3, 5, 8, 50, 64, 65])
def test_equal_windows_and_no_others_have_equal_fingerprints(length):
    rng = np.random.default_rng(length)
    tokens = np.concatenate([rng.integers(0, 2, 3000), np.zeros(300), rng.integers(0, 3, 3000)])
    tokens = np.tile(tokens, 2).astype(np.int32)
    texts = np.lib.stride_tricks.sliding_window_view(tokens, length)
    pairs = np.stack(fingerprints.of_windows(tokens, length), axis=1)
    assert len(pairs) == len(texts)
    both = np.concatenate([texts, pairs.view(np.int64)], axis=1)
    distinct = [len(np.unique(array, axis=0)) for array in (texts, pairs, both)]
    assert distinct[0] == distinct[1] == distinct[2]
    for half in pairs.T:
        assert len(np.unique(half)) == distinct[0]


def test_fingerprints_of_texts_on_which_a_rolling_hash_fails():
    bits = np.array([bin(i).count("1") % 2 for i in range(2048)], np.int32)
    found = [np.stack(fingerprints.of_windows(text, 2048)) for text in (bits, 1 - bits)]
    assert (found[0] != found[1]).all()
    assert not len(fingerprints.of_windows(bits, 2049)[0])
    ids = np.array([0, 65_536, 131_072, 262_143, 2**31 - 1, -1], np.int32)
    assert len(np.unique(fingerprints.of_windows(ids, 1)[0])) == len(ids)


def test_few_members_speak_for_many():
    rng = np.random.default_rng(0)
    for copies in (1, 2, 5):
        size = 10_000
        same = np.full(size, 7, np.uint64)
        rows = np.sort(rng.integers(0, 5000, size))
        origins = rng.integers(0, 3, 5000)[rows]
        every = members.make(same, same, rng.integers(0, 900, size), rows, origins)
        few = members.essential(every, 1, Options(max_copies=copies), counts_rows=True)
        assert 2 <= len(few) <= copies + 1 + 3
        counts = [len(np.unique(rows[origins == origin])) for origin in range(3)]
        assert np.bincount(few["origin"], few["held"]).tolist() == counts


def test_ids_that_agree_in_one_half_are_told_apart():
    halves = [(1, 1), (1, 2), (1, 3), (2, 2), (3, 1)]
    high, low = np.array(halves, np.uint64).T
    keys = np.arange(5)
    every = members.make(high, low, keys, keys, keys)
    decisions = np.zeros(3, members.DECISION)
    for at, (one, other) in enumerate([(3, 1), (1, 3), (1, 2)]):
        decisions[at] = (one, other, 10 * one + other, 0)
    index, found = members.match(every, [decisions[:1], decisions[1:]])
    assert index.tolist() == [1, 2, 4] and found["limit"].tolist() == [12, 13, 31]
    assert len(members.match(every, [])[0]) == 0
    parts = [*members.decide([every, every], np.array([0, 5]), 1, Options())]
    assert parts == []  # equal keys: five classes, and no copy


def test_shards_hold_whole_rows_and_are_read_as_written(tmp_path):
    starts = np.array([0, 3, 3, 10, 12, 40, 41], np.int64)
    tokens = np.arange(41, dtype=np.int32)
    np.save(tmp_path / "tokens.npy", tokens)
    mapped = np.load(tmp_path / "tokens.npy", mmap_mode="r")
    given = Examples(mapped, np.full(41, ANSWER, np.uint8), starts)
    bounds = shards.cut(starts, 8)
    assert bounds.tolist() == [0, 3, 5, 6]
    shards.write(str(tmp_path), given, np.arange(6), np.arange(6) + 9, bounds)
    found = [shards.read(str(tmp_path), number) for number in range(len(bounds) - 1)]
    assert np.concatenate([one.examples.tokens for one in found]).tolist() == tokens.tolist()
    assert np.concatenate([one.origins for one in found]).tolist() == [9, 10, 11, 12, 13, 14]
    for one in found:
        assert one.examples.starts[0] == 0 and one.position == starts[one.row]
        assert len(one.examples) == len(one.groups) and one.groups[0] == one.row


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/rows-1\.npz: cannot write: .*--temp_location"):
        shards.save(f"{tmp_path}/file/rows-1.npz", a=np.zeros(1))


def test_without_the_extra_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    one = Examples.from_list([])
    given = one, np.zeros(0, np.int64), np.zeros(0, np.int64), Options(engine="beam")
    with pytest.raises(UserError, match=r'dedup\.engine = "beam": .*Install the extra "beam"') as e:
        substring.policy(*given)
    assert "\n" not in str(e.value)


def test_a_search_alone_needs_an_engine_of_this_machine():
    given = Examples.from_list([]), np.zeros(0, np.int64), np.zeros(0, np.int64)
    with pytest.raises(
        UserError, match="unknown engine 'beam', expected one of suffix_array, hash"
    ):
        substring.find(*given, dataclasses.replace(Options(), engine="beam"))


def test_beam_is_imported_by_nothing_but_the_pipeline():
    code = "import sys, sft.data.dedup.beam.policy as p, sft.data.dedup.build"
    code += "; print([m for m in ('apache_beam', 'jax', 'gemma', 'scipy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
