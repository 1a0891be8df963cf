"""``sft data``: reads every configured set and says what the model would be trained on."""

from typing import Any

from ml_collections import ConfigDict

from sft import inputs, sources, training_set
from sft import workdir as workdirs
from sft.data import audit
from sft.data.dedup import normal
from sft.data.dedup import report as dedup
from sft.data.tokenizer import Tokenizer
from sft.errors import AuditFailed
from sft.model import specs
from sft.progress import phase
from sft.sets import Split

_LEFT = ("rows", "tokens", "trained_tokens", "mean_tokens", "max_tokens", "untrained")


def main(config: ConfigDict, workdir: str, strict: bool = False) -> dict[str, Any]:
    """Writes ``data/report.json`` and ``data/report.html``, and prints the short form.

    What training would refuse for what is in the rows is a finding here.

    Raises:
      UserError: no set is configured, or one is malformed.
      AuditFailed: ``strict``, and a finding is an error.
    """
    spec = specs.get(config.model.name)
    path = workdirs.prepare(config, workdir) / "data"
    tok = inputs.tokenizer(config, spec)
    splits = training_set.everything(config, spec, tok, path, fresh=True)
    described = _described(config, splits, tok)
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
            max_over_long=config.data.max_over_long,
            form=normal.Options(config.data.dedup.case, config.data.dedup.punctuation),
            dedup=described,
        )
    for name, split in splits.items():
        # What is left after the policy for long rows is what is trained on; lengths and sources
        # are told as they were read.
        left = split.report
        report["sets"][name] = left | report["sets"][name] | {key: left[key] for key in _LEFT}
    more = ""
    if described:
        more = dedup.html(described)
        print("\n".join(dedup.terminal(described)))
    workdirs.write_json(path / "report.json", report)
    workdirs.write_text(path / "report.html", audit.page.render(report, more))
    print(audit.terminal.render(report))
    print(f"wrote {path / 'report.json'} and report.html")
    found = [one for one in report["warnings"] if one["severity"] == "error"]
    if strict and found:
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        raise AuditFailed(f"{path / 'report.html'}: {found[0]['text']}{more}", report)
    return report


def _described(
    config: ConfigDict, splits: dict[str, Split], tok: Tokenizer
) -> dict[str, Any] | None:
    """What the plan does to the training set, if there is one."""
    planned = splits["train"].plan if "train" in splits else None
    if planned is None:
        return None
    found = dedup.describe(
        planned.plan, planned.conversations, planned.encoded, planned.evaluation, tok.decode
    )
    found["leakage"]["max_share"] = config.data.leakage.max_share
    return found
