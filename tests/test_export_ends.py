"""What ends an answer and how answers are drawn, as each library reads it."""

import json

import numpy as np
import pytest
from test_export_layouts import FAMILIES, make

from sft.data.tokenizer.sentencepiece import gguf_metadata
from sft.errors import UserError
from sft.export import gguf, hub


def told(folder, name):
    return json.loads((folder / name).read_text())


@pytest.mark.parametrize("family", FAMILIES)
def test_what_ends_an_answer(tmp_path, family):
    """Both the end of turn and <eos>, in both files: Transformers and vLLM read either."""
    tuned = make(tmp_path, family)
    ends = [1, {"gemma2": 10, "gemma3": 9}[family]]
    assert ends == [tuned.tokenizer.eos_id, tuned.tokenizer.end_of_turn_id]
    hub.write(tuned, tmp_path, "float32")
    for name in ("config.json", "generation_config.json"):
        found = told(tmp_path, name)
        assert (found["bos_token_id"], found["eos_token_id"], found["pad_token_id"]) == (2, ends, 0)
    gguf.write(tuned, tmp_path, "float32")
    found = gguf_metadata(str(tmp_path / gguf.MODEL))
    names = [f"tokenizer.ggml.{end}_token_id" for end in ("eos", "eot")]
    assert [found[name] for name in names] == ends


def test_how_answers_are_drawn(tmp_path):
    tuned = make(tmp_path)
    hub.write_generation(tuned, tmp_path)
    found = told(tmp_path, "generation_config.json")
    assert found["do_sample"] is False and "temperature" not in found
    tuned.config.eval.update({"temperature": 0.7, "top_p": 0.9})
    hub.write_generation(tuned, tmp_path)
    found = told(tmp_path, "generation_config.json")
    # Without top_k, or with null, Transformers takes 50.
    wanted = {"do_sample": True, "temperature": 0.7, "top_k": 0, "top_p": 0.9}
    assert {key: found[key] for key in wanted} == wanted


@pytest.mark.parametrize("leaf", ["q_SxNxHxD", "embed_VxD"])
def test_weights_beyond_float16_are_refused(tmp_path, leaf):
    tuned = make(tmp_path)
    held = tuned.params["layers"] if leaf in tuned.params["layers"] else tuned.params
    held[leaf] = np.array(held[leaf])
    held[leaf].flat[7] = 1e5
    with pytest.raises(UserError, match=f"{leaf} has weights beyond what float16 can hold"):
        list(tuned.leaves("float16"))
    with pytest.raises(UserError, match=f"{leaf} has weights beyond what float16 can hold"):
        gguf.write(tuned, tmp_path, "float16")
    list(tuned.leaves("bfloat16"))
    gguf.write(tuned, tmp_path, "bfloat16")
