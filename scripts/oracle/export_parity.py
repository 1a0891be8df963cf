"""What other libraries compute with the exports of a model, against what was tuned.

    python scripts/oracle/export_parity.py reference --workdir runs/quickstart --out runs/parity
    python scripts/oracle/export_parity.py tiny --out runs/parity_tiny   # gemma2/, gemma3/ in it
    .venv-oracle/bin/python scripts/oracle/export_parity.py transformers --out runs/parity
    python scripts/oracle/export_parity.py gemma --out runs/parity
    .venv-keras/bin/python scripts/oracle/export_parity.py keras --out runs/parity
    .venv-llama/bin/python scripts/oracle/export_parity.py llama --out runs/parity
    python scripts/oracle/export_parity.py table --out runs/parity

``reference`` exports the best checkpoint of a run in float32 in every format and the base model; it
writes the logits and the greedy answers of the tuned model. ``tiny`` does so with random models, of
both families, with random adapters. The others load the exports in the library they are for
(``transformers`` takes PEFT along), each in its own environment (``setup.sh``), and add lines to
``parity.jsonl``. Prompts are of at most 64 tokens but one, which is longer than the window, and of
which the last 64 positions are compared. ``goldens`` writes what the libraries computed with the
tiny models to ``tests/golden``.
"""

import argparse
import dataclasses
import json
import pathlib
import sys
from typing import TYPE_CHECKING
from unittest import mock

import export_runtimes as runtimes
import numpy as np
from export_runtimes import GOLDEN, KEPT, NEW_TOKENS, ROOT, SMALLER

if TYPE_CHECKING:
    from sft.export.tuned import Tuned

ANSWERS = 50
FAMILIES = ("gemma2", "gemma3")


def reference(out: pathlib.Path, workdir: str) -> None:
    """Exports, logits and answers of the tuned model, in float32."""
    from sft.export import tuned
    from sft.run import directory as workdirs

    config = workdirs.stored_config(workdir)
    config.model.dtype = "float32"
    model = tuned.load(config, pathlib.Path(workdir), "best")
    write(out, model, SMALLER)
    write_answers(out, model)


def tiny(out: pathlib.Path) -> None:
    """Random models: grouped heads, a window shorter than the prompts, the published patterns."""
    sys.path.insert(0, str(ROOT / "tests"))
    import test_export_layouts

    for family in FAMILIES:
        (out / family).mkdir(parents=True, exist_ok=True)
        write(out / family, test_export_layouts.make_published(out / family, family))


def write(out: pathlib.Path, model: "Tuned", smaller: tuple[str, ...] = ()) -> None:
    """The exports that are not there yet, ``reference.npz`` and the model's name.

    Args:
      smaller: types of GGUF's weights beside float32.
    """
    import jax
    import jax.numpy as jnp

    from sft.export import formats, verify
    from sft.model import decoder

    untuned = dataclasses.replace(model, adapters={})
    wanted = [(name, name, model, "float32") for name in formats.FORMATS]
    bases = {"base": "safetensors", "base_orbax": "orbax", "base_gguf": "gguf"}
    wanted += [(place, name, untuned, "float32") for place, name in bases.items()]
    wanted += [(f"gguf_{dtype}", "gguf", model, dtype) for dtype in smaller]
    for place, name, of, dtype in wanted:
        if (out / place).exists():  # of an earlier try
            continue
        (out / place).mkdir(parents=True)
        formats.get(name).write(of, out / place, dtype, "base")

    spec, tok = model.spec, model.tokenizer
    story = [f"On day {i} the ship sailed {37 * i % 101} miles. " for i in range(60)]
    prompts = [ids[:KEPT] for ids in verify.prompts(model)]
    prompts.append([tok.bos_id, *tok.encode("".join(story))][:600])
    options = dataclasses.replace(model.options, dtype=jnp.dtype("float32"), mesh=None)

    def logits(params, adapters, tokens_BxL):
        places_BxL = jnp.arange(tokens_BxL.shape[1])[None]
        segments_BxL = jnp.ones_like(tokens_BxL)
        hidden = decoder.forward(
            spec, params, adapters, tokens_BxL, places_BxL, segments_BxL, options
        )
        return decoder.logits(spec, params, hidden[0, -KEPT:])

    arrays = {f"ids{i}": np.asarray(ids, np.int32) for i, ids in enumerate(prompts)}
    for name, gelu in (("logits", jax.nn.gelu), ("llama", llama_gelu)):
        with mock.patch.object(jax.nn, "gelu", gelu):
            compute = jax.jit(lambda *given: logits(*given))
            for i, ids in enumerate(prompts):
                tokens_BxL = jnp.asarray([ids])
                arrays[f"{name}{i}"] = np.asarray(compute(model.params, model.adapters, tokens_BxL))
    np.savez(out / "reference.npz", **arrays)
    (out / "model.txt").write_text(spec.name)


def llama_gelu(x, approximate: bool = True):
    """As llama.cpp computes it, from a table of float16 (``GGML_GELU_FP16``, ggml-cpu/vec.h)."""
    import jax.numpy as jnp

    del approximate  # it always is
    half = x.astype(jnp.float16).astype(jnp.float32)
    y = 0.5 * half * (1 + jnp.tanh((2 / np.pi) ** 0.5 * (half + 0.044715 * half**3)))
    y = y.astype(jnp.float16).astype(jnp.float32)
    return jnp.where(x <= -10, 0.0, jnp.where(x >= 10, x, y))


def write_answers(out: pathlib.Path, model: "Tuned") -> None:
    """``answers.json``: prompts of the test set, and what the tuned model says to them."""
    from sft import session
    from sft.data.chat import encoding
    from sft.data.sets import loading
    from sft.eval import arms, harness

    config, spec, tok = model.config, model.spec, model.tokenizer
    config.eval.max_new_tokens = NEW_TOKENS
    (test,) = list(loading.Sets(config, spec, session.tokenizer(config, spec)).tests().values())[:1]
    asked = test.conversations[:ANSWERS]
    shape = config.data.chat or spec.family
    ids = [encoding.encode_prompt(row, tok, shape) for row in asked]
    greedy = arms.load(session.Session(config, str(model.path), only_scores=True), model.arm.step)
    said = harness.answer(greedy, config, ids)
    rows = [
        {"ids": [int(i) for i in one], "answer": answer.text}
        for one, answer in zip(ids, said, strict=True)
    ]
    (out / "answers.json").write_text(json.dumps(rows, ensure_ascii=False))


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


def goldens(out: pathlib.Path) -> None:
    """``tests/golden/exports_FAMILY.npz``: short prompts, and each library's logits of the last."""
    for family in FAMILIES:
        folder = out / family
        arrays = dict(np.load(folder / "reference.npz"))
        kept = {k: v for k, v in arrays.items() if k.startswith("ids")}
        for file in sorted(folder.glob("logits *.npz")):
            name = file.stem.removeprefix("logits ")
            kept |= {f"{name}/{k}": v for k, v in np.load(file).items()}
        np.savez_compressed(GOLDEN / f"exports_{family}.npz", **kept)


def main() -> None:
    sys.path.insert(0, str(ROOT))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    steps = {"tiny": tiny, "table": table, "goldens": goldens} | runtimes.STEPS
    parser.add_argument("what", choices=["reference", *steps])
    parser.add_argument("--workdir", default="runs/quickstart")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "runs" / "parity")
    args = parser.parse_args()
    if args.what == "reference":
        reference(args.out, args.workdir)
    else:
        steps[args.what](args.out)


if __name__ == "__main__":
    main()
