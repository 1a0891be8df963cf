"""What goes with an export: ``README.md``, a model card that Hugging Face reads, and ``NOTICE``."""

import json
from collections.abc import Mapping
from pathlib import Path

from sft import config as configs
from sft import display
from sft.eval import lines as result_lines
from sft.export import verify
from sft.export.tuned import Tuned
from sft.export.verify import Difference
from sft.report import scores
from sft.report.diagnosis import diagnose
from sft.report.load import Run, load_run

NOTICE = (
    "Gemma is provided under and subject to the Gemma Terms of Use found at "
    "ai.google.dev/gemma/terms\n"
)
_ELSEWHERE = ("data.", "eval.", "mesh.", "judge.", "mine.", "train.log", "train.keep")


def write(
    tuned: Tuned, folder: Path, library: str, base: str, use: str, about: str, found: Mapping
) -> None:
    """Both files.

    Args:
      library: that loads it, by its name on Hugging Face.
      base: what the base model is called.
      use: how to load it, markdown.
      about: what ``about`` says, the same in all formats.
      found: what was compared → ``Difference``.
    """
    text = "\n\n".join(
        (
            _head(library, base, bool(tuned.adapters)),
            f"# {tuned.path.resolve().name}",
            f"`{base}`, tuned by gemma-sft; {_checkpoint(tuned)}.",
            f"## Use\n\n{use}",
            about,
            f"## This export\n\n{_checked(found)}",
            f"## Licence\n\n{NOTICE.strip()}. The weights were modified by tuning; who passes them "
            "on passes those terms and the use restrictions in them on too.",
        )
    )
    (folder / "README.md").write_text(text + "\n")
    (folder / "NOTICE").write_text(NOTICE)


def about(tuned: Tuned) -> str:
    """Scores, data, training and diagnosis of the run, markdown."""
    run = load_run(tuned.path)
    return "\n\n".join(
        (
            f"## Scores\n\n{_scores(run, tuned.arm.name)}",
            f"## Data\n\n{_data(run)}",
            f"## Training\n\n{_training(run)}",
            f"## Diagnosis\n\n{_diagnosis(run)}",
        )
    )


def _head(library: str, base: str, adapted: bool) -> str:
    tags = ["gemma", "sft", *(["lora"] if adapted else [])]
    return (
        f"---\nlicense: gemma\nbase_model: {json.dumps(base)}\nlibrary_name: {library}\n"
        f"pipeline_tag: text-generation\ntags: {json.dumps(tags)}\n---"
    )


def _checkpoint(tuned: Tuned) -> str:
    how = f"adapters of rank {tuned.config.lora.rank}" if tuned.adapters else "all weights"
    return f"{how}, the checkpoint of step {tuned.arm.step} ({tuned.arm.name})"


def _scores(run: Run, arm: str) -> str:
    lines = [
        "| set | metric | base | tuned | 95 % interval | change |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in scores.of_sets(run).items():
        base = {score.metric: score.value for score in found if score.arm == "base"}
        for score in (score for score in found if score.arm == arm):
            metric, change, said = score.metric, score.change, "–"
            interval = display.interval(*score.interval, metric) if score.interval else "–"
            before = display.score(base[metric], metric) if metric in base else "–"
            if change:
                said = f"{display.change(change.value, metric)}, {change.verdict}"
            cells = name, display.name(metric), before, display.score(score.value, metric)
            lines.append("| " + " | ".join((*cells, interval, said)) + " |")
    cut = [
        f"{label} on {name}: {said}."
        for label, one in (("base", "base"), ("tuned", arm))
        for name in run.sets
        if (one, name) in run.evals and (said := result_lines.cut(run.evals[one, name]))
    ]
    if len(lines) == 2:
        return f"Not evaluated: run `sft eval --checkpoint={arm}`."
    return "\n".join(lines) + "".join(f"\n\n{text}" for text in cut)


def _data(run: Run) -> str:
    lines = []
    for name, found in run.data.get("sets", {}).items():
        files = ", ".join(Path(file).name for file in found.get("files", []))
        lines.append(f"* {name}: {found['rows']} rows, {found['tokens']} tokens ({files})")
    plan = run.path / "data" / "plan.json"
    if plan.exists():
        rows = json.loads(plan.read_text())["fingerprint"]["rows"]
        lines.append(f"* fingerprint of the training rows: `{rows}`")
    return "\n".join(lines) or "Not audited: run `sft data`."


def _training(run: Run) -> str:
    default = dict(configs.flatten(configs.default()))
    changed = {
        key: value
        for key, value in run.config.items()
        if value != default.get(key) and not key.startswith(_ELSEWHERE)
    }
    lines = [f"* `{key} = {json.dumps(value)}`" for key, value in changed.items()]
    git = run.environment.get("git") or {}
    versions = run.environment.get("versions") or {}
    lines.append(
        f"* configuration `{run.fingerprint}`, code `{git.get('revision', 'unknown')[:12]}`, "
        f"jax {versions.get('jax', 'unknown')}; the rest is as by default"
    )
    if run.selection:
        lines.append(f"* epoch {run.selection['epoch']:g} chosen: {run.selection.get('why', '')}")
    return "\n".join(lines)


def _diagnosis(run: Run) -> str:
    found = diagnose(run)
    lines = [f"* {finding.severity}: {finding.sentence}" for finding in found.findings]
    return "\n".join([*lines, *([""] if lines else []), found.summary])


def _checked(found: Mapping[str, Difference]) -> str:
    return "\n".join(f"* {what}: {verify.said(one)}" for what, one in found.items())
