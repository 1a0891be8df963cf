"""``sft recommend``: what to start from for this data set and model, by the guide's table."""

from pathlib import Path

from ml_collections import ConfigDict

from sft.errors import UserError
from sft.model import specs
from sft.report import recommendation
from sft.run import directory
from sft.tune import recommend
from sft.tune.recommend import Result


def main(config: ConfigDict, workdir: str, modality: str, slice: str) -> Result:
    """Prints the recommendation and writes ``recommendation.json``.

    Args:
      workdir: of a run that ``sft data`` has audited.
      modality, slice: see ``sft.tune.recommend.recommend``.

    Raises:
      UserError: no audit, no training set in it, no such slice or modality.
    """
    path = directory.path_of(workdir)
    train = _audited(path / "data" / "report.json")
    found = recommend.recommend(config, train, modality, slice)
    print("\n".join(recommendation.lines(found, specs.get(config.model.name), config, slice)))
    out = path / "recommendation.json"
    directory.write_json(out, found)
    print(f"wrote {out}")
    return found


def _audited(path: Path) -> Result:
    """The training set as ``sft data`` counted it.

    Raises:
      UserError: there is no audit, or no training row in it.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file. Run sft data with the same --workdir first.")
    train = directory.read_json(path).get("sets", {}).get("train", {})
    if not train.get("rows") or not train.get("tokens"):
        raise UserError(f"{path}: no training rows in it. Run sft data again.")
    return train
