"""``sft eval calibrate``: a judge's verdicts against people's ratings of the same rows."""

from typing import Any

from ml_collections import ConfigDict

from sft.eval.judge import calibrate
from sft.report import calibration


def main(config: ConfigDict, workdir: str, ratings: str) -> dict[str, Any]:
    """See ``sft.eval.judge.calibrate.calibrate``; prints what it finds."""
    result = calibrate.calibrate(config, workdir, ratings)
    print("\n".join(calibration.lines(result)))
    print(f"wrote {calibrate.path_of(workdir, result['mode'])}")
    return result
