import itertools

import numpy as np
import pytest

from sft.data.dedup import embeddings
from sft.errors import UserError


def planted(draw, directions=40, copies=4, width=32, noise=0.02):
    centres = np.repeat(draw.normal(size=(directions, width)), copies, axis=0)
    scales = draw.uniform(0.1, 10, (len(centres), 1))
    vectors = scales * (centres + noise * draw.normal(size=centres.shape))
    return vectors.astype(np.float32)[draw.permutation(len(centres))]


def components(vectors, threshold, cells):
    """By definition: all pairs in a cell."""
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = [*range(len(vectors))]
    for i, j in itertools.combinations(range(len(vectors)), 2):
        if cells[i] == cells[j] and units[i] @ units[j] >= threshold:
            low, high = sorted((labels[i], labels[j]))
            labels = [low if label == high else label for label in labels]
    return labels


@pytest.mark.parametrize("threshold", [0.3, 0.9, 0.99])
@pytest.mark.parametrize("at_once", [1, 50, 2**22])
def test_clusters_are_those_of_all_pairs_in_a_cell(monkeypatch, threshold, at_once):
    vectors = planted(np.random.default_rng(0))
    monkeypatch.setattr(embeddings, "_SIMILARITIES", at_once)
    found = embeddings.clusters(vectors, threshold, seed=3)
    cells = embeddings._cells(embeddings._unit_vectors(vectors, ""), 3)
    assert found.tolist() == components(vectors, threshold, cells) and found.dtype == np.int64
    assert len({*cells.tolist()}) > 1 and len({*found.tolist()}) < len(vectors)


def test_planted_copies_are_found_whatever_their_length():
    vectors = planted(np.random.default_rng(1))
    for scaled in (vectors, vectors * np.float32(1e37), vectors.astype(np.float64) * 1e-300):
        assert len({*embeddings.clusters(scaled, 0.95).tolist()}) == 40
    assert embeddings.clusters(np.array([[1, 2], [2, 4], [0, 1]]), 0.99).tolist() == [0, 0, 2]


def test_the_seed_decides(monkeypatch):
    monkeypatch.setattr(embeddings, "_SAMPLE", 60)
    vectors = np.random.default_rng(2).normal(size=(300, 4)).astype(np.float32)
    found = [embeddings.clusters(vectors, 0.9, seed).tolist() for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


def test_equal_vectors_are_one_cluster():
    assert not embeddings.clusters(np.ones((500, 3), np.float32), 1.0).any()
    assert embeddings.clusters(np.ones((1, 3), np.float32), 1.0).tolist() == [0]
    assert embeddings.clusters(np.ones((0, 3), np.float32), 1.0).shape == (0,)


def with_value(value):
    vectors = np.ones((5, 3), np.float32)
    vectors[3, 1] = value
    return vectors


@pytest.mark.parametrize(
    ("vectors", "threshold", "message"),
    [
        (with_value(np.nan), 0.9, "e.npy: row 3 has a value that is not finite; so have 1 of 5"),
        (with_value(np.inf), 0.9, "e.npy: row 3 has a value that is not finite; so have 1 of 5"),
        (np.zeros((2, 3)), 0.9, "e.npy: row 0 has only zeros; so have 2 of 2 rows"),
        (np.ones(5), 0.9, "e.npy: found float64 of shape (5,), expected numbers of shape"),
        (np.ones((5, 0)), 0.9, "e.npy: found float64 of shape (5, 0), expected numbers"),
        (np.full((2, 2), "x"), 0.9, "e.npy: found <U1 of shape (2, 2), expected numbers"),
        (np.ones((5, 3)), 0.0, "e.npy: threshold = 0.0: expected above 0 and at most 1."),
        (np.ones((5, 3)), 1.5, "e.npy: threshold = 1.5: expected above 0 and at most 1."),
    ],
)
def test_vectors_that_cannot_be_used(vectors, threshold, message):
    with pytest.raises(UserError) as error:
        embeddings.clusters(vectors, threshold, source="e.npy")
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_a_file_of_embeddings(tmp_path):
    path = str(tmp_path / "e.npy")
    np.save(path, np.arange(6, dtype=np.float16).reshape(3, 2))
    assert embeddings.read(path, 3).tolist() == [[0, 1], [2, 3], [4, 5]]


def no_file(path):
    pass


def text_file(path):
    path.write_text("0.1 0.2\n")


def cut_file(path):
    np.save(path, np.ones((4, 2)))
    path.write_bytes(path.read_bytes()[:-8])


def objects(path):
    np.save(path, np.array([[{}]]), allow_pickle=True)


def archive(path):
    with path.open("wb") as file:
        np.savez(file, a=np.ones((4, 2)))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (no_file, "no such file. Expected a .npy file of embeddings."),
        (text_file, "not a .npy file of numbers: "),
        (lambda path: path.write_bytes(b""), "not a .npy file of numbers: "),
        (cut_file, "not a .npy file of numbers: "),
        (objects, "not a .npy file of numbers: "),
        (archive, "found an archive of arrays, expected (4, width): one vector for each row"),
        (lambda path: np.save(path, np.ones((3, 2))), "found (3, 2), expected (4, width)"),
        (lambda path: np.save(path, np.ones(4)), "found (4,), expected (4, width)"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, write, message):
    path = tmp_path / "e.npy"
    write(path)
    with pytest.raises(UserError) as error:
        embeddings.read(str(path), 4)
    assert str(error.value).startswith(f"{path}: {message}") and "\n" not in str(error.value)
