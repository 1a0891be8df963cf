"""What goes with an export: ``README.md``, a model card that Hugging Face reads, and ``NOTICE``."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sft.eval import lines as result_lines
from sft.export import public, use, verify
from sft.export.base import Base
from sft.export.formats import Format
from sft.export.tuned import Tuned
from sft.export.verify import Difference
from sft.report import findings, scores
from sft.report.diagnosis import diagnose
from sft.report.load import Record, Run, load_run
from sft.run import display

NOTICE = (
    "Gemma is provided under and subject to the Gemma Terms of Use found at "
    "ai.google.dev/gemma/terms\n"
)


def write(
    tuned: Tuned, folder: Path, format_: Format, base: Base, about: str, found: Mapping
) -> None:
    """Both files.

    Args:
      about: what ``about`` says, the same in all formats.
      found: what was compared → ``Difference``.
    """
    text = "\n\n".join(
        (
            _head(format_.library, base, bool(tuned.adapters)),
            f"# {' '.join(tuned.path.resolve().name.split())}",
            f"{_base(base)}, tuned by gemma-sft; {_checkpoint(tuned)}.",
            f"## Use\n\n{format_.use(tuned, base)}",
            f"## Prompts\n\n{use.prompts(tuned, format_.carrier)}",
            about,
            f"## This export\n\n{_checked(found)}",
            f"## Licence\n\n{NOTICE.strip()}. The weights were modified by tuning; who passes them "
            "on passes those terms and the use restrictions in them on too.",
        )
    )
    (folder / "README.md").write_text(text + "\n")
    (folder / "NOTICE").write_text(NOTICE)


def about(tuned: Tuned, base: Base) -> str:
    """Scores, data, training and diagnosis of the run, markdown."""
    run = load_run(tuned.path)
    return "\n\n".join(
        (
            f"## Scores\n\n{_scores(run, tuned.arm.name)}",
            *filter(None, (_answers(run, tuned.arm.name), _weights(tuned, base))),
            f"## Data\n\n{_data(run)}",
            f"## Training\n\n{_training(run)}",
            f"## Diagnosis\n\n{_diagnosis(run)}",
        )
    )


def _head(library: str, base: Base, adapted: bool) -> str:
    named = f"base_model: {json.dumps(base.name)}\n" if base.name else ""
    tags = ["gemma", "sft", *(["lora"] if adapted else [])]
    return (
        f"---\nlicense: gemma\n{named}library_name: {library}\n"
        f"pipeline_tag: text-generation\ntags: {json.dumps(tags)}\n---"
    )


def _base(base: Base) -> str:
    return f"`{base.name}`" if base.name else f"The model in {_code(base.file)}"


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


def _weights(tuned: Tuned, base: Base) -> str:
    """Which weights were scored, and in which types."""
    stored = f"{base.stored}, dequantised" if base.is_quantised else base.stored
    text = (
        f"The base model of these scores, and of the tuning, is {_code(base.file)} ({stored}), "
        f"computed in {tuned.config.model.dtype}"
    )
    text += ", with the adapters in float32 beside it." if tuned.adapters else "."
    if base.name and base.is_quantised:
        text += f" The published `{base.name}` has other weights, with which scores may differ."
    return text


def _answers(run: Run, arm: str) -> str:
    """How the scored answers were drawn, set by set, and what they are to be measured by."""
    lines = []
    for name in run.sets:
        if record := run.eval(arm, name):
            given = run.config | record.get("settings", {})
            heat, stop = given["eval.temperature"], given.get("eval.stop")
            parts = ["greedy answers" if not heat else f"answers drawn at temperature {heat:g}"]
            parts[0] += f" of at most {given['eval.max_new_tokens']} tokens"
            if stop:
                parts.append(f"ended by the texts {_code(stop)} too")
            if "primary" in record:
                parts.append(f"the metric of the set is {display.name(record['primary'])}")
            lines.append(f"* {name}: {', '.join([*parts, *_constants(record)])}")
    return "\n".join(lines)


def _constants(record: Record) -> list[str]:
    """What answers that look at no prompt would score."""
    metric = record.get("primary", "exact_match")
    found = []
    for kind, text in (("majority", "the most frequent answer alone"), ("random", "a random one")):
        scored = record.get("constant", {}).get(kind, {}).get("metrics", {}).get(metric)
        if scored:
            found.append(f"{text} would score {display.score(scored['value'], metric)}")
    return found


def _data(run: Run) -> str:
    lines = []
    for name, found in run.data.get("sets", {}).items():
        files = ", ".join(map(public.file_names, found.get("files", [])))
        lines.append(f"* {name}: {found['rows']} rows, {found['tokens']} tokens ({files})")
    plan = run.path / "data" / "plan.json"
    if plan.exists():
        rows = json.loads(plan.read_text())["fingerprint"]["rows"]
        lines.append(f"* fingerprint of the training rows: `{rows}`")
    return "\n".join(lines) or "Not audited: run `sft data`."


def _training(run: Run) -> str:
    rows = [
        f"| `{key}` | {_cell(value)} | {_cell(default)} |"
        for key, value, default in public.settings(findings.changed_config(run))
    ]
    git = run.environment.get("git") or {}
    versions = run.environment.get("versions") or {}
    lines = [
        "| setting | value | default |",
        "|---|---|---|",
        *rows,
        "",
        "Paths are shown by their last names. All other settings that could change a number are at "
        "their defaults.",
        "",
        f"* configuration `{run.fingerprint}`, code `{git.get('revision', 'unknown')[:12]}`, "
        f"jax {versions.get('jax', 'unknown')}",
    ]
    if run.selection:
        lines.append(f"* epoch {run.selection['epoch']:g} chosen: {run.selection.get('why', '')}")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    """A value in a table of markdown; a setting that has no default is shown as a dash."""
    return "–" if value is None else _code(json.dumps(value, ensure_ascii=False))


def _code(text: str) -> str:
    """As code within a line, also of a table."""
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    room = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{room}{text}{room}{fence}".replace("|", "\\|")


def _diagnosis(run: Run) -> str:
    found = diagnose(run)
    lines = [
        f"* {finding.severity}: {public.sentence(finding.sentence, run.config)}"
        for finding in found.findings
    ]
    return "\n".join([*lines, *([""] if lines else []), found.summary])


def _checked(found: Mapping[str, Difference]) -> str:
    return "\n".join(f"* {what}: {verify.said(one)}" for what, one in found.items())
