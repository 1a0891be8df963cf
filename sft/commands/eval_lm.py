"""``sft eval lm``: tasks of lm-eval (EleutherAI's evaluation harness) on an arm of a run."""

import dataclasses
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from sft import config as configs
from sft.errors import UserError
from sft.eval import arms
from sft.run import directory as workdirs
from sft.run import hosts
from sft.session import Session


@dataclasses.dataclass(frozen=True)
class Tasks:
    """What lm-eval is asked to do.

    Attributes:
      names: of its tasks or groups of tasks, or YAML files.
      limit: documents of each task, first ones; 0 = all.
      fewshot: examples before each question; -1 = as the task says.
      chat: questions are put as user turns, in the format that the run is trained in.
      max_length: tokens of a request; longer ones are cut on the left. 0 = the model's own.
    """

    names: tuple[str, ...]
    limit: int = 0
    fewshot: int = -1
    chat: bool = False
    max_length: int = 0


def main(
    config: ConfigDict,
    workdir: str,
    checkpoint: str,
    tasks: Sequence[str],
    limit: int,
    fewshot: int,
    chat: bool,
    max_length: int,
) -> dict[str, Any]:
    """Evaluates, and writes ``eval/lm.<arm>.json`` and, a line a document, ``….samples.jsonl``.

    Args:
      checkpoint: ``base``, ``best``, ``latest`` or a step.
      tasks, limit, fewshot, chat, max_length: see ``Tasks``.

    Returns:
      What is in the file.

    Raises:
      UserError: lm-eval is not installed; an unknown task, or one whose data cannot be loaded.
    """
    import jax

    wanted = Tasks(tuple(tasks), limit, fewshot, chat, max_length)
    # lm-eval would fork to resample, and a fork of a process with JAX's threads can hang.
    os.environ["DISABLE_MULTIPROC"] = "1"
    try:
        import lm_eval
        from lm_eval.tasks import TaskManager

        from sft.eval.lm_eval import Gemma
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "lm_eval":
            raise
        raise UserError(
            "sft eval lm needs the package lm-eval, which is not installed. "
            "Install the extra: uv sync --extra lm-eval."
        ) from None
    with hosts.started(config):
        if jax.process_count() > 1:
            raise UserError("sft eval lm runs on one host. Start it on one.")
        session = Session(config, workdir, only_scores=True)
        path = session.path
        arm, step = arms.which(path, config, checkpoint)
        manager = TaskManager(include_defaults=not all(map(_is_file, wanted.names)))
        _check(wanted.names, manager)
        begun = time.perf_counter()
        found = lm_eval.simple_evaluate(
            Gemma.load(session, step, wanted.max_length or None),
            tasks=list(wanted.names),
            num_fewshot=None if wanted.fewshot < 0 else wanted.fewshot,
            limit=wanted.limit or None,
            apply_chat_template=wanted.chat,
            random_seed=config.seed,
            numpy_random_seed=config.seed,
            fewshot_random_seed=config.seed,
            torch_random_seed=None,
            bootstrap_iters=1000,
            task_manager=manager,
        )
    checkpoint = "base" if step is None else f"checkpoints/{step}"
    result = {
        "arm": arm,
        "checkpoint": checkpoint,
        "lm_eval": lm_eval.__version__,
        **dataclasses.asdict(wanted),
        "tasks": {name: _scores(found, name) for name in found["results"]},
        "seconds": time.perf_counter() - begun,
    }
    _write(path / "eval", result, found["samples"])
    return result


def _write(folder: Path, result: dict[str, Any], samples: dict[str, list[dict]]) -> None:
    """The files, and a line for each score."""
    arm = result["arm"]
    rows = [{"task": name} | row for name, of_task in samples.items() for row in of_task]
    lines = [json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows]
    workdirs.write_text(folder / f"lm.{arm}.samples.jsonl", "".join(lines))
    workdirs.write_json(folder / f"lm.{arm}.json", result)
    for name, task in result["tasks"].items():
        for metric, score in task["metrics"].items():
            spread = "" if score["stderr"] is None else f" ± {score['stderr']:.4f}"
            print(f"{arm} on {name}: {metric} {score['value']:.4f}{spread}")
    print(f"wrote {folder / f'lm.{arm}.json'}")


def _is_file(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


def _check(names: tuple[str, ...], manager: Any) -> None:
    """Loads every task, before the model is.

    Raises:
      UserError: naming the task.
    """
    if not names:
        raise UserError("--tasks=NAME is missing: tasks of lm-eval or YAML files, with commas.")
    for name in names:
        if _is_file(name) and not Path(name).is_file():
            raise UserError(f"--tasks={name}: no such file.")
        if not _is_file(name) and not manager.match_tasks([name]):
            hint = configs.nearest(name, manager.all_tasks)
            raise UserError(f"--tasks={name}: no such task in lm-eval.{hint}")
        try:
            manager.load([name])
        except Exception as error:  # of datasets, the hub, the network, or code of the task
            said = " ".join(str(error).split())[:300]
            raise UserError(
                f"--tasks={name}: cannot be loaded ({type(error).__name__}: {said}). Tasks of "
                "lm-eval fetch their data from the Hugging Face hub; a YAML file can name a local "
                "one."
            ) from None


def _scores(found: dict[str, Any], name: str) -> dict[str, Any]:
    """``{"metrics": {metric: {"value", "stderr", "better"}}, "documents", "fewshot"}``; lm-eval
    names a metric after what was extracted from the answer too, as in ``exact_match,strict``."""
    values = found["results"][name]
    higher = found.get("higher_is_better", {}).get(name, {})
    metrics = {}
    for key, value in values.items():
        metric, _, extracted = key.partition(",")
        if not extracted or metric.endswith("_stderr"):
            continue
        stderr = values.get(f"{metric}_stderr,{extracted}")
        better = {True: "higher", False: "lower"}.get(higher.get(metric))
        label = metric if extracted == "none" else key
        stderr = stderr if isinstance(stderr, float) else None
        metrics[label] = {"value": value, "stderr": stderr, "better": better}
    documents = found.get("n-samples", {}).get(name, {}).get("effective")
    return {
        "metrics": metrics,
        "documents": documents,
        "fewshot": found.get("n-shot", {}).get(name),
    }
