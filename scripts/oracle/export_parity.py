"""What other libraries compute with the exports of a run, against what was tuned.

    python scripts/oracle/export_parity.py reference --workdir runs/quickstart --out runs/parity
    .venv-oracle/bin/python scripts/oracle/export_parity.py transformers --out runs/parity
    python scripts/oracle/export_parity.py gemma --out runs/parity
    .venv-keras/bin/python scripts/oracle/export_parity.py keras --out runs/parity
    python scripts/oracle/export_parity.py table --out runs/parity

``reference`` exports the best checkpoint in float32 in every format, and the base model; it writes
the logits and the greedy answers of the tuned model. The others load the exports in the library
they are for (``transformers`` takes PEFT along), each in its own environment, and add lines to
``parity.jsonl``. Prompts are of at most 64 tokens but one, which is longer than the window, and of
which the last 64 positions are compared.
"""

import argparse
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
ANSWERS = 50
NEW_TOKENS = 16


def reference(out: pathlib.Path, workdir: str) -> None:
    """Exports, logits and answers of the tuned model, in float32."""
    sys.path.insert(0, str(ROOT))
    import dataclasses

    import jax
    import jax.numpy as jnp

    from sft import inputs, sets
    from sft import workdir as workdirs
    from sft.data import chat
    from sft.eval import arms, harness
    from sft.export import formats, tuned, verify
    from sft.model import decoder

    config = workdirs.stored_config(workdir)
    config.model.dtype = "float32"
    model = tuned.load(config, pathlib.Path(workdir), "best")
    untuned = dataclasses.replace(model, adapters={})
    wanted = [(name, name, model) for name in formats.FORMATS]
    wanted += [("base", "safetensors", untuned), ("base_orbax", "orbax", untuned)]
    for place, name, of in wanted:
        if (out / place).exists():  # of an earlier try
            continue
        (out / place).mkdir(parents=True)
        formats.get(name).write(of, out / place, "float32", "base")

    spec, tok = model.spec, model.tokenizer
    story = [f"On day {i} the ship sailed {37 * i % 101} miles. " for i in range(60)]
    prompts = [ids[:KEPT] for ids in verify.prompts(model)]
    prompts.append([tok.bos_id, *tok.encode("".join(story))][:600])
    options = dataclasses.replace(model.options, dtype=jnp.dtype("float32"), mesh=None)

    @jax.jit
    def logits(params, adapters, tokens_BxL):
        places_BxL = jnp.arange(tokens_BxL.shape[1])[None]
        segments_BxL = jnp.ones_like(tokens_BxL)
        hidden = decoder.forward(
            spec, params, adapters, tokens_BxL, places_BxL, segments_BxL, options
        )
        return decoder.logits(spec, params, hidden[0, -KEPT:])

    arrays = {}
    for i, ids in enumerate(prompts):
        arrays[f"ids{i}"] = np.asarray(ids, np.int32)
        arrays[f"logits{i}"] = np.asarray(logits(model.params, model.adapters, jnp.asarray([ids])))
    np.savez(out / "reference.npz", **arrays)

    config.eval.max_new_tokens = NEW_TOKENS
    (test,) = list(sets.tests(config, spec, inputs.tokenizer(config, spec)).values())[:1]
    asked = test.conversations[:ANSWERS]
    shape = config.data.chat or spec.family
    ids = [chat.encode_prompt(row, tok, shape) for row in asked]
    greedy = arms.load(config, workdir, model.arm.step, tok)
    said = harness.answer(greedy, config, ids)
    rows = [
        {"ids": [int(i) for i in one], "answer": answer}
        for one, answer in zip(ids, said, strict=True)
    ]
    (out / "answers.json").write_text(json.dumps(rows, ensure_ascii=False))


def check(
    out: pathlib.Path, library: str, form: str, logits_of: Callable[[np.ndarray], np.ndarray]
) -> None:
    """Adds a line to ``parity.jsonl``; ``logits_of`` maps ids ``[L]`` to logits ``[L, V]``."""
    stored = np.load(out / "reference.npz")
    short: list[tuple[float, ...]] = []
    for i in range(len(stored.files) // 2):
        ids, ours = stored[f"ids{i}"], stored[f"logits{i}"]
        theirs = logits_of(ids)[-KEPT:, : ours.shape[1]].astype(np.float32)
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
    wrong = sum(tokenizer(r["text"], add_special_tokens=False).input_ids != r["ids"] for r in rows)
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
    model = gm.nn.Gemma3_270M(dtype=jnp.float32)

    def logits_of(model, params) -> Callable[[np.ndarray], np.ndarray]:
        apply = jax.jit(lambda p, x: model.apply({"params": p}, x).logits[0])
        return lambda ids: np.asarray(apply(params, jnp.asarray([ids.tolist()])))

    params = gm.ckpts.load_params(out.absolute() / "orbax" / "merged")
    check(out, name, "orbax merged", logits_of(model, params))
    sampler = gm.text.Sampler(
        model=model, params=params, cache_length=512, max_out_length=NEW_TOKENS,
        tokenizer=gm.text.Gemma3Tokenizer(path=out / "safetensors" / "tokenizer.model"),
    )  # fmt: skip
    rows = json.loads((out / "answers.json").read_text())
    texts = [sampler.tokenizer.decode(row["ids"][1:]) for row in rows]
    said = sampler.sample(texts, max_new_tokens=NEW_TOKENS)
    same = sum(
        a.removesuffix("<end_of_turn>") == row["answer"] for a, row in zip(said, rows, strict=True)
    )
    add(out, {"library": name, "format": "orbax merged", "answers": len(rows), "same": same})
    del params, sampler
    adapters = ocp.StandardCheckpointer().restore(out.absolute() / "orbax" / "adapters")
    rank = adapters["layer_0"]["mlp"]["_LoRAEinsum_linear"]["lora"]["a"].shape[-1]
    base = gm.ckpts.load_params(out.absolute() / "base_orbax" / "merged")
    adapted = gm.nn.LoRA(rank=rank, dtype=jnp.float32, model=model)
    check(out, name, "orbax adapters", logits_of(adapted, peft.merge_params(base, adapters)))


def of_keras(out: pathlib.Path) -> None:
    import os

    os.environ["KERAS_BACKEND"] = "jax"
    import keras_hub

    model = keras_hub.models.Gemma3Backbone.from_preset(str(out / "keras"), dtype="float32")

    def logits_of(ids):
        asked = {"token_ids": ids[None], "padding_mask": np.ones_like(ids)[None]}
        return np.asarray(model.token_embedding(model(asked), reverse=True))[0]

    check(out, f"keras-hub {keras_hub.__version__}", "keras", logits_of)


def table(out: pathlib.Path) -> None:
    lines = [
        "| library | format | largest | largest, 600 tokens | mean | mean KL | same choice |",
        "|---|---|---|---|---|---|---|",
    ]
    for text in (out / "parity.jsonl").read_text().splitlines():
        row = json.loads(text)
        if "largest" in row:
            cells = [row["library"], row["format"]]
            cells += [f"{row[k]:.1e}" for k in ("largest", "largest_long", "mean", "kl")]
            lines.append("| " + " | ".join([*cells, f"{100 * row['argmax']:.1f} %"]) + " |")
        else:
            print(row, file=sys.stderr)
    print("\n".join(lines))


STEPS = {
    "reference": reference,
    "transformers": of_transformers,
    "gemma": of_gemma,
    "keras": of_keras,
    "table": table,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=list(STEPS))
    parser.add_argument("--workdir", default="runs/quickstart")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "runs" / "parity")
    args = parser.parse_args()
    if args.what == "reference":
        reference(args.out, args.workdir)
    else:
        STEPS[args.what](args.out)


if __name__ == "__main__":
    main()
