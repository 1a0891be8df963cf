"""What there is to do after a report, as commands that can be copied."""

import shlex

from sft.report import scores
from sft.report.compare import Comparison, Entry
from sft.report.load import Run
from sft.report.sweep import Sweep
from sft.run import bucket, display

Todo = dict[str, str]  # by command, what it is for


def of_run(run: Run) -> Todo:
    """The next steps of one run: to train, to score, or to use what has been learnt."""
    where = _workdir(run)
    if not run.done:
        return {f"sft train {where}": "go on with the training" if run.train else "train it"}
    sets = run.config.get("data.test") or run.config.get("data.split.test")
    test = "" if sets or run.evals else " --config.data.test=FILE"
    todo = {}
    if not any(arm == "base" for arm, _ in run.evals):
        todo[f"sft eval {where} --checkpoint=base{test}"] = "score the base model"
    if not any(arm == "best" for arm, _ in run.evals):
        todo[f"sft eval {where}{test}"] = "score the tuned model"
    if todo:
        return todo | {f"sft report {_quoted(run)}": "compare them"}
    return {
        f"sft chat {where} --beside": "talk to it, and to the base model beside it",
        _export(run): "for other libraries",
    }


def of_comparison(found: Comparison) -> Todo:
    """To use the best model of the first set, surely the best or not."""
    for table in found.tables:
        tuned = [entry for entry in table.entries if not entry.arm.startswith("base")]
        metric = scores.primary(*(entry.record for entry in tuned))
        if best := _best(tuned, metric):
            surely = "the best" if table.best.get(metric) == best.label else "not surely the best"
            return _use(best, f"{best.label}, {surely} on {table.name}")
    return {}


def of_sweep(found: Sweep) -> Todo:
    """To finish the sweep, or to use the best seed of the configuration with the best mean."""
    if found.unfinished:
        count = display.counted(len(found.unfinished), "point")
        return {"the same sft sweep again": f"train and score {count} more"}
    for sheet in found.sheets:
        metric = scores.primary(*(e.record for row in sheet.rows for e in row.group.entries))
        rows = sheet.rows[sheet.best[metric] :][:1] if metric in sheet.best else sheet.rows
        if best := _best([entry for row in rows for entry in row.group.entries], metric):
            which = "best seed of the best mean" if metric in sheet.best else "none is better"
            return _use(best, f"{best.label}, {which} on {sheet.name}")
    return {}


def lines(todo: Todo) -> str:
    """``next: sft eval …`` and what each is for, one below another; ``""``: nothing to do."""
    width = max(map(len, todo), default=0)
    rows = [f"{command:<{width}}  {what}" for command, what in todo.items()]
    return "next: " + "\n      ".join(rows) if rows else ""


def _best(entries: list[Entry], metric: str) -> Entry | None:
    """The one with the best value, whatever its interval; the first of those that share it."""
    known = [entry for entry in entries if metric in entry.metrics]
    if not known:
        return None
    sign = 1 if known[0].metrics[metric]["better"] == "higher" else -1
    return max(known, key=lambda entry: sign * entry.metrics[metric]["value"])


def _use(best: Entry, what: str) -> Todo:
    return {
        f"sft report {_quoted(best.run)}": f"look at {what}",
        _export(best.run, best.arm): "for other libraries",
    }


def _export(run: Run, arm: str = "best") -> str:
    formats = "peft,safetensors" if run.config.get("lora.rank", 1) else "safetensors"
    which = "" if arm == "best" else f" --checkpoint={arm.removeprefix('step')}"
    out = f" --out={shlex.quote(f'export/{run.path.name}')}" if bucket.holds(run.path) else ""
    return f"sft export {_workdir(run)} --format={formats}{which}{out}"


def _workdir(run: Run) -> str:
    return f"--workdir={_quoted(run)}"


def _quoted(run: Run) -> str:
    return shlex.quote(str(run.path))
