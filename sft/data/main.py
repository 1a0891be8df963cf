"""``sft data``: reads every configured set and says what the model would be trained on."""

from typing import Any

from ml_collections import ConfigDict

from sft import inputs, sources, training_set
from sft import workdir as workdirs
from sft.data import audit
from sft.data.dedup import report as dedup
from sft.eval import evalset, limits
from sft.model import specs
from sft.progress import phase

_LEFT = ("rows", "tokens", "trained_tokens", "mean_tokens", "max_tokens", "untrained")


def main(config: ConfigDict, workdir: str) -> dict[str, Any]:
    """Writes ``data/report.json`` and ``data/report.html``, and prints the short form.

    Raises:
      UserError: no set is configured, one is malformed, or training gives away too much of what
        it will be evaluated on.
    """
    spec = specs.get(config.model.name)
    path = workdirs.prepare(config, workdir) / "data"
    tok = inputs.tokenizer(config, spec)
    splits = training_set.everything(config, spec, tok, path, fresh=True)
    with phase("auditing"):
        report = audit.examine(
            {
                name: audit.Set(split.files, split.records, split.encoded, split.fit, split.passes)
                for name, split in splits.items()
            },
            sources.production(config),
            tokenizer=tok,
            max_length=config.data.max_length,
            eval_max_length=config.data.eval_max_length,
            policy=config.data.over_long,
        )
    for name, split in splits.items():
        # What is left after the policy for long rows is what is trained on; lengths and sources
        # are told as they were read.
        left = split.report
        report["sets"][name] = left | report["sets"][name] | {key: left[key] for key in _LEFT}
    planned = splits["train"].plan if "train" in splits else None
    more = ""
    if planned:
        report["dedup"] = dedup.describe(
            planned.plan, planned.conversations, planned.encoded, planned.evaluation, tok.decode
        )
        more = dedup.html(report["dedup"])
        print("\n".join(dedup.terminal(report["dedup"])))
    workdirs.write_json(path / "report.json", report)
    workdirs.write_text(path / "report.html", audit.page.render(report, more))
    print(audit.terminal.render(report))
    print(f"wrote {path / 'report.json'} and report.html")
    for name, split in splits.items():
        if name != "train" and (name != "validation" or config.eval.during_training):
            limits.warn(config, name, evalset.expected(evalset.asked(config, split)), tok)
    if planned:
        training_set.gate(config, splits["train"])
    return report
