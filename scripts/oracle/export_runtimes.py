"""The exports in the libraries they are for: see ``export_parity.py``, which calls these."""

import gzip
import json
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
KEPT = 64  # last positions of each prompt
NEW_TOKENS = 16
SMALLER = ("float16", "bfloat16", "q8_0")  # of GGUF, beside float32


def check(
    out: pathlib.Path,
    library: str,
    form: str,
    logits_of: Callable[[np.ndarray], np.ndarray],
    against: str = "logits",
) -> None:
    """Adds a line to ``parity.jsonl``; ``logits_of`` maps ids ``[L]`` to logits ``[L, V]``.

    Those of the last position go to ``logits LIBRARY FORMAT.npz``. ``against`` is which of ours.
    """
    stored = np.load(out / "reference.npz")
    short: list[tuple[float, ...]] = []
    last = {}
    for i in range(len(stored.files) // 3):
        ids, ours = stored[f"ids{i}"], stored[f"{against}{i}"]
        theirs = logits_of(ids)[-KEPT:, : ours.shape[1]].astype(np.float32)
        last[f"logits{i}"] = theirs[-1]
        gap = np.abs(ours - theirs)
        p, q = (
            x - np.logaddexp.reduce(x, -1, keepdims=True) for x in map(np.float64, (ours, theirs))
        )
        kl = float((np.exp(p) * (p - q)).sum(-1).mean())
        same = float((ours.argmax(-1) == theirs.argmax(-1)).mean())
        short.append((float(gap.max()), float(gap.mean()), kl, same))
    *others, long = short
    found = {
        "library": library,
        "format": form,
        "largest": max(x[0] for x in others),
        "largest_long": long[0],
        "mean": float(np.mean([x[1] for x in short])),
        "kl": float(np.mean([x[2] for x in short])),
        "argmax": float(np.mean([x[3] for x in short])),
    }
    np.savez(out / f"logits {library} {form}.npz", **last)
    add(out, found)


def add(out: pathlib.Path, found: dict[str, Any]) -> None:
    print(json.dumps(found), flush=True)
    with (out / "parity.jsonl").open("a") as file:
        file.write(json.dumps(found) + "\n")


def of_transformers(out: pathlib.Path) -> None:
    import peft
    import torch
    import transformers

    torch.set_num_threads(2)
    name = f"transformers {transformers.__version__}"
    load = transformers.AutoModelForCausalLM.from_pretrained

    def logits_of(model) -> Callable[[np.ndarray], np.ndarray]:
        def run(ids):
            with torch.no_grad():
                return model(torch.tensor([ids.tolist()])).logits[0].numpy()

        return run

    merged = load(out / "safetensors", dtype=torch.float32, attn_implementation="eager").eval()
    check(out, name, "safetensors", logits_of(merged))
    if (out / "answers.json").exists():
        tokenizer = transformers.AutoTokenizer.from_pretrained(out / "safetensors")
        check_tokenizer(out, name, tokenizer)
        check_answers(out, name, "safetensors", tokenizer, merged)
    del merged
    base = load(out / "base", dtype=torch.float32, attn_implementation="eager").eval()
    adapted = peft.PeftModel.from_pretrained(base, out / "peft").eval()
    name = f"peft {peft.__version__}"
    check(out, name, "peft", logits_of(adapted))
    check(out, f"{name}, merged", "peft", logits_of(adapted.merge_and_unload()))


def check_tokenizer(out: pathlib.Path, library: str, tokenizer) -> None:
    """Strings and chats of the published tokenizer, and control pieces as text."""
    rows = list(golden("tokenizer_gemma3.jsonl.gz"))
    literals = list(golden("tokenizer_literals_gemma3.jsonl.gz"))
    wrong, steered = (
        sum(tokenizer(r["text"], add_special_tokens=False).input_ids != r["ids"] for r in some)
        for some in (rows, literals)
    )
    back = sum(tokenizer.decode(r["ids"]) != r["text"] for r in rows)
    bos = sum(tokenizer(r["text"]).input_ids != [2, *r["ids"]] for r in rows)
    chats = list(golden("tokenizer_chat_gemma3.jsonl.gz"))
    apart = 0
    for row in chats:
        said = [{"role": "system", "content": row["system"]}] if row["system"] is not None else []
        roles = ("user", "assistant")
        said += [{"role": roles[i % 2], "content": t} for i, t in enumerate(row["turns"])]
        options = {"tokenize": True, "return_dict": False}
        asked = tokenizer.apply_chat_template(said[:-1], add_generation_prompt=True, **options)
        whole = tokenizer.apply_chat_template(said, **options)
        apart += list(whole) != row["ids"] or list(asked) != row["prompt_ids"]
    found = {"strings": len(rows), "wrong": wrong, "decoded_wrong": back, "bos_wrong": bos}
    found |= {"literals": len(literals), "literals_wrong": steered}
    add(out, {"library": library, "format": "tokenizer.json", **found,
              "chats": len(chats), "chats_wrong": apart})  # fmt: skip


def golden(name: str) -> Iterator[dict]:
    with gzip.open(GOLDEN / name, "rt") as file:
        yield from map(json.loads, file)


def check_answers(out: pathlib.Path, library: str, form: str, tokenizer, model) -> None:
    import torch

    rows = json.loads((out / "answers.json").read_text())
    same = 0
    for row in rows:
        ids = torch.tensor([row["ids"]])
        with torch.no_grad():
            made = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False,
                                  max_new_tokens=NEW_TOKENS)  # fmt: skip
        text = tokenizer.decode(made[0, len(row["ids"]) :], skip_special_tokens=True)
        same += text == row["answer"]
    add(out, {"library": library, "format": form, "answers": len(rows), "same": same})


def of_gemma(out: pathlib.Path) -> None:
    import importlib.metadata

    import jax
    import jax.numpy as jnp
    import orbax.checkpoint as ocp
    from gemma import gm, peft

    name = f"gemma {importlib.metadata.version('gemma')}"
    model = gemma_model(gm, (out / "model.txt").read_text(), out)

    def logits_of(model, params) -> Callable[[np.ndarray], np.ndarray]:
        apply = jax.jit(lambda p, x: model.apply({"params": p}, x).logits[0])
        return lambda ids: np.asarray(apply(params, jnp.asarray([ids.tolist()])))

    params = gm.ckpts.load_params(out.absolute() / "orbax" / "merged")
    check(out, name, "orbax", logits_of(model, params))
    if (out / "answers.json").exists():
        sampler = gm.text.Sampler(
            model=model, params=params, cache_length=512, max_out_length=NEW_TOKENS,
            tokenizer=gm.text.Gemma3Tokenizer(path=out / "safetensors" / "tokenizer.model"),
        )  # fmt: skip
        rows = json.loads((out / "answers.json").read_text())
        said = sampler.sample(
            [sampler.tokenizer.decode(row["ids"][1:]) for row in rows], max_new_tokens=NEW_TOKENS
        )
        same = sum(
            a.removesuffix("<end_of_turn>") == row["answer"]
            for a, row in zip(said, rows, strict=True)
        )
        add(out, {"library": name, "format": "orbax", "answers": len(rows), "same": same})
        del sampler
    del params
    adapters = ocp.StandardCheckpointer().restore(out.absolute() / "orbax" / "adapters")
    rank = adapters["layer_0"]["mlp"]["_LoRAEinsum_linear"]["lora"]["a"].shape[-1]
    base = gm.ckpts.load_params(out.absolute() / "base_orbax" / "merged")
    adapted = gm.nn.LoRA(rank=rank, dtype=jnp.float32, model=model)
    check(out, name, "orbax adapters", logits_of(adapted, peft.merge_params(base, adapters)))


def gemma_model(gm, name: str, out: pathlib.Path):
    import jax.numpy as jnp

    if name == "gemma3_270m":
        return gm.nn.Gemma3_270M(dtype=jnp.float32)
    sys.path.insert(0, str(ROOT / "tests"))
    import test_export_layouts
    import test_parity

    spec = test_export_layouts.make_published(out, out.name).spec
    return test_parity.gemma_model(gm, spec, transposed=True)


def of_keras(out: pathlib.Path) -> None:
    import os

    os.environ["KERAS_BACKEND"] = "jax"
    import keras_hub

    model = keras_hub.models.Backbone.from_preset(str(out / "keras"), dtype="float32")

    def logits_of(ids):
        asked = {"token_ids": ids[None], "padding_mask": np.ones_like(ids)[None]}
        return np.asarray(model.token_embedding(model(asked), reverse=True))[0]

    check(out, f"keras-hub {keras_hub.__version__}", "keras", logits_of)


def of_llama(out: pathlib.Path) -> None:
    """The model, the adapters on the base model, and what llama.cpp makes smaller of the model.

    It takes GELU from a table of float16, so the model is also compared with ours that does.
    """
    import ctypes

    import llama_cpp

    name = f"llama-cpp-python {llama_cpp.__version__}"

    def load(place: str, file: str = "model.gguf", **options):
        return llama_cpp.Llama(
            str(out / place / file), n_ctx=1024, n_batch=1024, logits_all=True, verbose=False,
            type_k=llama_cpp.GGML_TYPE_F32, type_v=llama_cpp.GGML_TYPE_F32, **options,
        )  # fmt: skip

    def logits_of(model) -> Callable[[np.ndarray], np.ndarray]:
        def run(ids):
            model.reset()
            model.eval(ids.tolist())
            return model.scores[: len(ids)].copy()

        return run

    model = load("gguf")
    check(out, name, "gguf", logits_of(model))
    check(out, name, "gguf, ours with its GELU", logits_of(model), "llama")
    if (out / "answers.json").exists():
        llama_tokenizer(out, name, model)
        llama_answers(out, name, "gguf", model)
    del model
    model = load("base_gguf", lora_path=str(out / "gguf" / "adapter.gguf"))
    check(out, name, "gguf adapter", logits_of(model))
    if (out / "answers.json").exists():
        llama_answers(out, name, "gguf adapter", model)
        del model
        others = [(f"gguf_{dtype}", "model.gguf", f"gguf {dtype}") for dtype in SMALLER]
        options = llama_cpp.llama_model_quantize_default_params()
        for kind in ("Q8_0", "Q4_K_M"):
            options.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
            files = [str(out / "gguf" / f).encode() for f in ("model.gguf", f"{kind}.gguf")]
            assert llama_cpp.llama_model_quantize(*files, ctypes.byref(options)) == 0
            others.append(("gguf", f"{kind}.gguf", f"gguf, made {kind} by it"))
        for place, file, form in others:
            model = load(place, file)
            check(out, name, form, logits_of(model))
            llama_answers(out, name, form, model)


def llama_tokenizer(out: pathlib.Path, library: str, model) -> None:
    found: dict[str, Any] = {"library": library, "format": "gguf tokenizer"}
    for kind in ("tokenizer", "tokenizer_literals"):
        rows = list(golden(f"{kind}_gemma3.jsonl.gz"))
        wrong = [
            row["text"]
            for row in rows
            if model.tokenize(row["text"].encode(), add_bos=False, special=True) != row["ids"]
        ]
        found |= {kind: len(rows), f"{kind}_wrong": len(wrong), f"{kind}_which": wrong[:10]}
    add(out, found)


def llama_answers(out: pathlib.Path, library: str, form: str, model) -> None:
    rows = json.loads((out / "answers.json").read_text())
    same = 0
    for row in rows:
        model.reset()
        made = model.create_completion(row["ids"], max_tokens=NEW_TOKENS, temperature=0.0)
        same += made["choices"][0]["text"] == row["answer"]
    add(out, {"library": library, "format": form, "answers": len(rows), "same": same})


STEPS = {
    "transformers": of_transformers,
    "gemma": of_gemma,
    "keras": of_keras,
    "llama": of_llama,
}
