"""``sft data``: reads every configured set and says what the model would be trained on."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from sft.data import audit
from sft.data.audit import rendered
from sft.data.batches import examples, truncation
from sft.data.dedup import normal
from sft.data.sets import loading, sources, training
from sft.data.sets.loading import Split
from sft.data.tokenizer.sentencepiece import Tokenizer
from sft.errors import AuditFailed
from sft.eval import evalset, limits
from sft.model import specs
from sft.report.audit import dedup, page, terminal
from sft.run import directory as workdirs
from sft.run.progress import phase
from sft.session import Session

_LEFT = ("rows", "tokens", "trained_tokens", "mean_tokens", "max_tokens", "untrained")


def main(config: ConfigDict, workdir: str, strict: bool = False) -> dict[str, Any]:
    """Writes ``data/report.json`` and ``data/report.html``, and prints the short form.

    What training would refuse for what is in the rows is a finding here.

    Raises:
      UserError: no set is configured, or one is malformed.
      AuditFailed: ``strict``, and a finding is an error.
    """
    session = Session(config, workdir)
    path = session.path / "data"
    spec, tok = session.spec, session.tokenizer
    splits = training.everything(session.sets, path, fresh=True)
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
    pieces = [piece for piece, _, _ in tok.pieces()]
    for name, split in splits.items():
        # What is left after the policy for long rows is what is trained on; lengths and sources
        # are told as they were read.
        left = split.report
        report["sets"][name] = left | report["sets"][name] | {key: left[key] for key in _LEFT}
        report["sets"][name]["shown"] = _shown(config, name, split, spec, tok, pieces)
    report["prompt_weight"] = config.loss.prompt_weight
    more = ""
    if described:
        more = dedup.html(described)
        print("\n".join(dedup.terminal(described)))
    workdirs.write_json(path / "report.json", report)
    workdirs.write_text(path / "report.html", page.render(report, more))
    print(terminal.render(report))
    print(f"wrote {path / 'report.json'} and report.html")
    for name, split in splits.items():
        if name != "train" and (name != "validation" or config.eval.during_training):
            limits.warn(config, name, evalset.expected(evalset.asked(config, split)), tok)
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


def _shown(
    config: ConfigDict,
    name: str,
    split: Split,
    spec: specs.Spec,
    tok: Tokenizer,
    pieces: Sequence[str],
) -> list[dict[str, Any]]:
    """A few rows of a set as they are trained: also one that is masked and one that is too long."""
    data, rows, special = config.data, split.records.conversations, []
    is_train, planned = name == "train", split.plan
    if planned is not None and len(planned.plan.rows):
        masked = planned.conversations[planned.plan.rows[0]]
        special += [index for index, row in enumerate(rows) if row is masked][:1]
    if is_train:
        special += np.flatnonzero(split.encoded.lengths > data.max_length + 1)[:1].tolist()
    chosen = rendered.choose(rows, split.encoded, special)
    picked, after = [rows[index] for index in chosen], split.encoded.select(chosen)
    form, train_on = loading.chat_format(config, spec), data.train_on if is_train else data.eval_on
    before = examples.encode_all(picked, tok, form, train_on)
    cuts = truncation.gaps(after, data.max_length, data.over_long) if is_train else {}
    return rendered.describe(rendered.Shown(picked, before, after, cuts), pieces)
