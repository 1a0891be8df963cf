"""``sft data``: reads every configured set and says what is in it."""

from typing import Any

from ml_collections import ConfigDict

from sft import inputs
from sft import workdir as workdirs
from sft.errors import UserError
from sft.model import specs


def main(config: ConfigDict, workdir: str) -> dict[str, Any]:
    """Writes ``data/report.json`` and prints it.

    Raises:
      UserError: no set is configured, or one is malformed.
    """
    names = [name for name in ("train", "validation", "test") if config.data[name]]
    if not names:
        raise UserError("config.data.train, validation and test are all empty: nothing to read.")
    spec = specs.get(config.model.name)
    path = workdirs.prepare(config, workdir)
    tok = inputs.tokenizer(config, spec)
    splits = {name: inputs.split(config, name, spec, tok) for name in names}
    inputs.write_data_report(path, splits)
    for name, split in splits.items():
        report = split.report
        print(
            f"{name}: {report['rows']} rows, {sum(report['rejected'].values())} rejected, "
            f"{report['tokens']} tokens of which {report['trained_tokens']} trained, "
            f"longest {report['max_tokens']}"
        )
    print(f"wrote {path / 'data' / 'report.json'}")
    return {name: split.report for name, split in splits.items()}
