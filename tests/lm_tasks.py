"""Tasks for lm-eval with data in local files, in the forms in which its own tasks come."""

import json
from pathlib import Path

import tiny_run
from safetensors.numpy import load_file, save_file
from test_tokenizer import tiny, tiny_pieces

from sft.data.tokenizer import sentencepiece

TASKS = {
    "choice": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{prompt}}",
        "target_delimiter": "",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "gold",
    },
    "unconditional": {  # scored after <bos> alone
        "output_type": "multiple_choice",
        "doc_to_text": "",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "gold",
    },
    "rolling": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "bits_per_byte"}, {"metric": "word_perplexity"}],
    },
    "answer": {
        "output_type": "generate_until",
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{answer}}",
        "metric_list": [{"metric": "exact_match"}],
    },
}


def write(folder: Path, documents: dict[str, list[dict]], **generation) -> list[str]:
    """Writes a YAML file and a JSONL file for each task.

    Args:
      documents: of each task, a key of ``TASKS``.
      generation: the task ``answer``'s ``generation_kwargs``.

    Returns:
      The YAML files.
    """
    files = []
    for name, rows in documents.items():
        data = folder / f"{name}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        task = {"task": f"local_{name}", "dataset_path": "json", "test_split": "test"}
        task |= {"dataset_kwargs": {"data_files": {"test": str(data)}}} | TASKS[name]
        if name == "answer":
            task["generation_kwargs"] = generation
        file = folder / f"{name}.yaml"
        file.write_text(json.dumps(task))  # JSON is YAML
        files.append(str(file))
    return files


def tiny_documents() -> dict[str, list[dict]]:
    """For a random model: most of what it may say is a choice, so that some are its greedy ones.
    Spaces at the end of a prompt belong to the choices."""
    words = ["the user", "an in ", "model", "日 é", "a  ", "x y z", "tu  tu ", "0 1 2 3 4 5 6 7"]
    choices = [*map(chr, range(33, 127)), "\n", "the user", "ab", " th", "é日"]
    return {
        "choice": [{"prompt": w, "choices": choices, "gold": i} for i, w in enumerate(words)],
        "unconditional": [{"choices": choices, "gold": 1}],
        "rolling": [{"text": " ".join([w] * n)} for w, n in zip(words, range(1, 9), strict=True)],
        "answer": [{"prompt": w * n, "answer": "a"} for n in (1, 3) for w in words],
    }


def build_tiny(folder: Path) -> tiny_run.Project:
    """The tiny project with weights that choose no byte, no control piece and no <unk>: programs
    differ in how they show those."""
    project = tiny_run.build(folder)
    weights = project.path / "weights.safetensors"
    tensors = load_file(weights)
    for index, (piece, _, kind) in enumerate(tiny_pieces()):
        is_hidden = kind == sentencepiece.BYTE or piece == "<unk>" or tiny().has_control(piece)
        if is_hidden and piece != "<bos>":  # which every context has
            tensors["model.embed_tokens.weight"][index] = 0
    save_file(tensors, weights)
    return project


def responses(samples: dict[str, list[dict]]) -> dict[str, list]:
    """What the model answered to each document, in order, as JSON has it: of each choice the
    log-likelihood and whether it is the greedy one; one log-likelihood; or a text."""
    found = {}
    for name, rows in samples.items():
        rows = sorted(rows, key=lambda row: row["doc_id"])
        found[name] = json.loads(json.dumps([row["filtered_resps"] for row in rows]))
    return found
