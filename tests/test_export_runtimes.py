"""What Transformers, PEFT, gemma, Keras-Hub and llama.cpp computed with exports of tiny models.

Recorded by ``scripts/oracle/export_parity.py``. The models are made again here and exported; what
is written must be those models, and they must have the libraries' logits.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_export_layouts import FAMILIES, make_published
from tiny_run import ROOT

from sft.export import formats
from sft.model import decoder

sys.path.insert(0, str(ROOT / "scripts/oracle"))

import export_parity

LIBRARIES = {
    "transformers 5.23.0 safetensors",
    "peft 0.21.2 peft",
    "peft 0.21.2, merged peft",
    "gemma 4.0.1 orbax",
    "gemma 4.0.1 orbax adapters",
    "keras-hub 0.32.0 keras",
    "llama-cpp-python 0.3.36 gguf",
    "llama-cpp-python 0.3.36 gguf adapter",
}
PROMPTS = range(7)


@pytest.fixture(scope="module", params=FAMILIES)
def recorded(request, tmp_path_factory):
    """The model; the prompts, and the last logits by library."""
    tuned = make_published(tmp_path_factory.mktemp("run"), request.param)
    return tuned, np.load(export_parity.GOLDEN / f"exports_{request.param}.npz")


def last_logits(tuned, adapters, golden):
    """Of each prompt, ``[P, V]``."""

    @jax.jit  # a new one each time, for a GELU of its own
    def last(tokens_BxL):
        places_BxL = jnp.arange(tokens_BxL.shape[1])[None]
        segments_BxL = jnp.ones_like(tokens_BxL)
        hidden_BxLxD = decoder.forward(
            tuned.spec, tuned.params, adapters, tokens_BxL, places_BxL, segments_BxL, tuned.options
        )
        return decoder.logits(tuned.spec, tuned.params, hidden_BxLxD[0, -1:])[0]

    return np.stack([last(jnp.asarray(golden[f"ids{i}"])[None]) for i in PROMPTS])


def gaps(ours_PxV, golden, library):
    """Largest and mean difference, and whether the most likely tokens are the same."""
    theirs_PxV = np.stack([golden[f"{library}/logits{i}"] for i in PROMPTS])
    gap_PxV = np.abs(ours_PxV - theirs_PxV)
    print(f"\n{library}: max {gap_PxV.max():.1e} mean {gap_PxV.mean():.1e}")
    return gap_PxV.max(), gap_PxV.mean(), (ours_PxV.argmax(-1) == theirs_PxV.argmax(-1)).all()


def test_libraries_compute_the_same(recorded, monkeypatch):
    tuned, golden = recorded
    assert {name.split("/")[0] for name in golden.files if "/" in name} >= LIBRARIES
    ours_PxV = last_logits(tuned, tuned.adapters, golden)
    for library in sorted(LIBRARIES):
        largest, mean, same = gaps(ours_PxV, golden, library)
        assert same
        if not library.startswith("llama"):
            assert largest <= 1e-3 and mean <= 5e-5
    # llama.cpp has GELU in float16, and that is all: with it we differ by no more than others.
    monkeypatch.setattr(jax.nn, "gelu", export_parity.llama_gelu)
    ours_PxV = last_logits(tuned, tuned.adapters, golden)
    for library in ("llama-cpp-python 0.3.36 gguf", "llama-cpp-python 0.3.36 gguf adapter"):
        largest, mean, _ = gaps(ours_PxV, golden, library)
        assert largest <= 2e-3 and mean <= 1e-4
    base_PxV = last_logits(tuned, {}, golden)
    assert np.abs(base_PxV - ours_PxV).max() > 1  # it is not the base model that agrees


@pytest.mark.parametrize("name", list(formats.FORMATS))
def test_what_is_written_is_that_model(recorded, tmp_path, name):
    tuned, _ = recorded
    format_ = formats.get(name)
    format_.write(tuned, tmp_path, "float32", "base")
    format_.check(tuned, tmp_path, "float32")  # raises where it is another model
