"""How weights are stored, as a card says it: in every format that is read."""

import pytest
from test_export_layouts import make

from sft.export import gguf, hub, official
from sft.model import weights


@pytest.mark.parametrize(
    ("dtype", "stored"), [("float32", "F32"), ("float16", "F16"), ("bfloat16", "BF16")]
)
def test_gguf(tmp_path, dtype, stored):
    tuned = make(tmp_path)
    gguf.write(tuned, tmp_path, dtype)
    file = str(tmp_path / gguf.MODEL)
    assert weights.stored(tuned.spec, file) == f"GGUF, {stored}"
    # A file that does not say it is of the type that most of its matrices are of.
    source = weights.opened(weights.resolve(file))(tuned.spec)
    del source.file.metadata["general.file_type"]
    assert source.stored == f"GGUF, {stored}"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_safetensors(tmp_path, dtype):
    tuned = make(tmp_path)
    hub.write(tuned, tmp_path, dtype)
    assert weights.stored(tuned.spec, str(tmp_path)) == f"safetensors, {dtype}"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_orbax(tmp_path, dtype):
    tuned = make(tmp_path)
    official.write(tuned, tmp_path, dtype)
    assert weights.stored(tuned.spec, str(tmp_path / official.MERGED)) == f"Orbax, {dtype}"
