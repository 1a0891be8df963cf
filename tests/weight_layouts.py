"""Writers of every published layout, for tests: our tree out, by the mappings of each format."""

import json

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import tiny
from safetensors.numpy import save_file

from sft.model import decoder, specs

SPECS = {"gemma2": specs.tiny("gemma2"), "gemma3": specs.tiny("gemma3")}


def make_tree(spec):
    """Random values; norms in 64ths, so that GGUF's ``1 + w`` is exact."""
    rng = np.random.default_rng(0)

    def values(path, leaf):
        x = tiny.drawn(rng.standard_normal, path[-1].key, leaf.shape)
        return (np.round(x * 64) / 64 if "norm" in str(path) else x).astype(np.float32)

    return jax.tree_util.tree_map_with_path(values, decoder.abstract_params(spec, jnp.float32))


def matrices(spec, tree, i):
    """The ``[out, in]`` matrices of layer ``i``."""
    w = {name.split("_Sx")[0]: leaf[i] for name, leaf in tree["layers"].items()}
    rows = {name: w[name].reshape(-1, spec.embed) for name in "qkv"}
    o = w["o"].reshape(-1, spec.embed).T
    return w | rows | {"o": o} | {name: w[name].T for name in ("gate", "up", "down")}


HF = {
    "pre_attention_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "pre_ffw_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
    **{f"{n}_norm": f"self_attn.{n}_norm" for n in "qk"},
    **{n: f"self_attn.{n}_proj" for n in "qkvo"},
    **{n: f"mlp.{n}_proj" for n in ("gate", "up", "down")},
}
LLAMA_CPP = {
    "pre_attention_norm": "attn_norm",
    "post_attention_norm": "post_attention_norm",
    "pre_ffw_norm": "ffn_norm",
    "post_ffw_norm": "post_ffw_norm",
    **{f"{n}_norm": f"attn_{n}_norm" for n in "qk"},
    **{n: f"attn_{n}" for n in "qkv"},
    "o": "attn_output",
    **{n: f"ffn_{n}" for n in ("gate", "up", "down")},
}


def hf_tensors(spec, tree, prefix="model."):
    tensors = {"embed_tokens.weight": tree["embed_VxD"], "norm.weight": tree["final_norm_D"]}
    for i in range(spec.num_layers):
        for name, matrix in matrices(spec, tree, i).items():
            tensors[f"layers.{i}.{HF[name]}.weight"] = matrix
    return {prefix + name: np.ascontiguousarray(x) for name, x in tensors.items()}


def write_hf(path, spec, tree, prefix="model.", extra=None):
    save_file(hf_tensors(spec, tree, prefix) | (extra or {}), path)


def write_hf_shards(directory, spec, tree):
    tensors = hf_tensors(spec, tree)
    files = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(tensors)}
    for file in set(files.values()):
        save_file({n: x for n, x in tensors.items() if files[n] == file}, directory / file)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))


def write_gguf(path, spec, tree, family=None, skip=()):
    writer = gguf.GGUFWriter(path, family or spec.family)
    writer.add_block_count(spec.num_layers)
    writer.add_token_list(["<pad>", "語"] * 8)
    tensors = {"token_embd.weight": tree["embed_VxD"], "output_norm.weight": tree["final_norm_D"]}
    for i in range(spec.num_layers):
        for name, matrix in matrices(spec, tree, i).items():
            tensors[f"blk.{i}.{LLAMA_CPP[name]}.weight"] = matrix
    for name, x in tensors.items():
        if name not in skip:
            writer.add_tensor(name, np.ascontiguousarray(x + 1 if "norm" in name else x))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def flat_gemma(spec, tree, transposed):
    """``{"layer_0/attn/q_einsum/w": …}`` as the gemma package shapes them."""
    flat = {"embedder/input_embedding": tree["embed_VxD"], "final_norm/scale": tree["final_norm_D"]}
    for i in range(spec.num_layers):
        w = {name.split("_Sx")[0]: leaf[i] for name, leaf in tree["layers"].items()}
        gating = np.stack([w["gate"], w["up"]])
        layer = {
            "attn/q_einsum/w": w["q"].transpose(0, 2, 1),
            "attn/kv_einsum/w": np.stack([w["k"], w["v"]]).transpose(0, 1, 3, 2),
            "attn/attn_vec_einsum/w": w["o"],
            "mlp/gating_einsum": gating.transpose(0, 2, 1) if transposed else gating,
            "mlp/linear": w["down"],
        }
        layer |= {f"{n}/scale": x for n, x in w.items() if n.startswith(("pre_", "post_"))}
        if spec.qk_norm:
            layer |= {
                "attn/_query_norm/scale": w["q_norm"],
                "attn/_key_norm/scale": w["k_norm"],
            }
        flat |= {f"layer_{i}/{name}": x for name, x in layer.items()}
    return flat


def nest(flat):
    tree = {}
    for name, x in flat.items():
        *path, leaf = name.split("/")
        node = tree
        for key in path:
            node = node.setdefault(key, {})
        node[leaf] = x
    return tree


def official(flat):
    """The released layout: one level of joined names, then the leaf; ``w`` below mlp."""
    tree = {}
    for name, x in flat.items():
        head, leaf = f"{name}/w".rsplit("/", 1) if "/mlp/" in name else name.rsplit("/", 1)
        tree.setdefault(f"transformer/{head}", {})[leaf] = x
    return tree


def stacked(flat, period):
    """The released layout with layers of one kind stacked."""
    groups = {}
    for name, x in flat.items():
        head, _, rest = name.partition("/")
        if head.startswith("layer_"):
            i = int(head.removeprefix("layer_"))
            groups.setdefault(f"stacked_layers/attention_type_{i % period}/{rest}", []).append(x)
        else:
            groups[name] = x
    return official({n: np.stack(x) if isinstance(x, list) else x for n, x in groups.items()})


def write_orbax(path, tree, **options):
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**options)) as checkpointer:
        checkpointer.save(path, jax.tree.map(jnp.asarray, tree))


def write(layout, path, spec, tree):
    """Writes ``tree`` and returns the path to load."""
    flat = flat_gemma(spec, tree, transposed=layout != "orbax-nested")
    target = path / {"hf": "m.safetensors", "gguf": "m.gguf"}.get(layout.split()[0], "checkpoint")
    if layout.startswith("hf "):
        write_hf(target, spec, tree, layout.removeprefix("hf "))
    elif layout == "hf-shards":
        target.mkdir()
        write_hf_shards(target, spec, tree)
    elif layout == "gguf":
        write_gguf(target, spec, tree)
    elif layout == "orbax-nested":
        write_orbax(target, nest(flat))
    elif layout == "orbax-flat":
        write_orbax(target, official(flat))
    elif layout == "orbax-stacked":
        write_orbax(target, stacked(flat, period=len(spec.pattern)))
    elif layout == "orbax-plain-files":
        write_orbax(target, official(flat), use_ocdbt=False)
    elif layout == "orbax-zarr3":
        write_orbax(target, official(flat), use_zarr3=True)
    elif layout == "orbax-kauldron":
        write_orbax(target / "default", {"params": nest(flat), "step": np.int32(3)})
    return target


LAYOUTS = (
    "hf model.",
    "hf model.language_model.",
    "hf language_model.model.",
    "hf-shards",
    "gguf",
    "orbax-nested",
    "orbax-flat",
    "orbax-stacked",
    "orbax-plain-files",
    "orbax-zarr3",
    "orbax-kauldron",
)
