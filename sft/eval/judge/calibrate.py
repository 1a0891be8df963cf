"""A judge's verdicts against people's ratings of the same rows.

Says whether the judge may be trusted, what sways it, and what people would say of all rows.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from sft.errors import UserError
from sft.eval.judge import agreement, bias, corrected, ratings
from sft.eval.judge.people import Group, groups
from sft.run.directory import write_json

FEW = 30  # rated rows of an arm and set below which the corrected interval is rough


def calibrate(config: ConfigDict, workdir: str, files: str) -> dict[str, Any]:
    """Writes ``eval/judge.calibration.<mode>.json``.

    Fit is a judge whose quadratically weighted kappa with people has an interval that lies above
    ``config.judge.agreement`` as a whole: few ratings show nothing, and leave a judge unfit.

    Args:
      files: CSV files of ratings, joined by commas.

    Returns:
      What is written.

    Raises:
      UserError: ratings that cannot be used, or with fewer than two that the judge judged too.
    """
    mode, folder = config.judge.mode, Path(workdir) / "eval"
    paths = [path.strip() for path in files.split(",") if path.strip()]
    read = ratings.read(config, paths)
    raters = sorted({rating.rater for rating in read.ratings})
    found = groups(folder, mode, read.ratings, raters)
    _check_scale(config, found)
    judge_n = np.concatenate([group.judge_n for group in found])
    people_nxR = np.concatenate([group.people_nxR for group in found])
    both_n = np.isfinite(judge_n) & np.isfinite(people_nxR).any(1)
    if both_n.sum() < 2:
        raise UserError(
            f"{files}: people and judge share {both_n.sum()} rows: too few to compare them. Rate "
            "more rows."
        )
    result = {
        "mode": mode,
        "judge": found[0].result["judge"],
        "ratings": {
            "files": paths,
            "raters": {name: sum(r.rater == name for r in read.ratings) for name in raters},
            "rows": int(np.isfinite(people_nxR).any(1).sum()),
            "unrated_lines": read.unrated,
            "rows_without_verdict": int((np.isfinite(people_nxR).any(1) & ~both_n).sum()),
        },
        "agreement": _agreement(config, found, judge_n, people_nxR),
    }
    result |= _fit(config, result["agreement"]["judge"])
    seed = config.judge.seed
    beyond_n = judge_n[both_n] - np.nanmean(people_nxR[both_n], axis=1)
    doublings_n = np.concatenate([group.doublings_n for group in found])[both_n]
    result["length_bias"] = bias.length(beyond_n, doublings_n, seed)
    if mode == "pairwise":
        result["position_bias"] = {
            "judge": {g.label + "." + g.set: g.result["position_bias"] for g in found},
            # A rating in the file is of the order that was shown.
            "people": bias.place([rating.value for rating in read.ratings]),
        }
    result["corrected"] = [_corrected(group) for group in found]
    write_json(path_of(workdir, mode), result)
    return result


def path_of(workdir: str, mode: str) -> Path:
    """Where ``calibrate`` writes."""
    return Path(workdir) / "eval" / f"judge.calibration.{mode}.json"


def _check_scale(config: ConfigDict, found: Sequence[Group]) -> None:
    ours = [config.judge.low, config.judge.high]
    for group in found:
        theirs = group.result.get("scale", ours)
        if theirs != ours:
            raise UserError(
                f"{group.label} on {group.set} was judged on a scale of {theirs}, but "
                f"config.judge.low and .high are {ours}."
            )


def _agreement(
    config: ConfigDict, found: Sequence[Group], judge_n: np.ndarray, people_nxR: np.ndarray
) -> dict[str, Any]:
    """Judge with people, people with one another, and the judge with people for each arm."""
    low, high, seed = config.judge.low, config.judge.high, config.judge.seed
    domain = range(low, high + 1) if config.judge.mode == "pointwise" else range(-1, 2)

    def with_judge(judge_n: np.ndarray, people_nxR: np.ndarray) -> dict[str, Any]:
        every = np.concatenate([judge_n[:, None], people_nxR], axis=1)
        rated_nxR = every[np.isfinite(people_nxR).any(1)]
        pairs = [(0, rater) for rater in range(1, rated_nxR.shape[1])]
        return agreement.measure(rated_nxR, domain, pairs, seed)

    labels = list(dict.fromkeys(group.label for group in found))
    by_arm = {
        label: with_judge(
            np.concatenate([g.judge_n for g in found if g.label == label]),
            np.concatenate([g.people_nxR for g in found if g.label == label]),
        )
        for label in labels
    }
    people = people_nxR[np.isfinite(people_nxR).any(1)]
    return {
        "judge": with_judge(judge_n, people_nxR),
        "people": agreement.measure(people, domain, seed=seed) if people.shape[1] > 1 else None,
        "by_arm": by_arm if len(labels) > 1 else {},
    }


def _fit(config: ConfigDict, measured: dict[str, Any]) -> dict[str, Any]:
    least, kappa = config.judge.agreement, measured["weighted_kappa"]
    if kappa["interval"] is None:
        why = "weighted kappa with people is undefined: all ratings or all verdicts are the same"
        return {"fit": False, "threshold": least, "why": why}
    low, high = kappa["interval"]
    fit = low >= least
    why = (
        f"weighted kappa with people {kappa['value']:.3f} [{low:.3f}, {high:.3f}] on "
        f"{measured['rows']} rows: its lower bound is {'not ' if fit else ''}below "
        f"config.judge.agreement = {least:g}"
    )
    return {"fit": fit, "threshold": least, "why": why}


def _corrected(group: Group) -> dict[str, Any]:
    """People's mean over all judged rows; of a pair, the win rate, in which a tie is half."""
    scale = 1.0 if "score" in group.result else 0.5
    offset = 0.0 if "score" in group.result else 0.5
    people_nxR = offset + scale * group.people_nxR
    judge_n = offset + scale * group.judge_n
    rated_n = np.isfinite(people_nxR).any(1)
    has_verdict_n = np.isfinite(judge_n)
    entry: dict[str, Any] = {"arm": group.label, "set": group.set}
    entry["judge"] = float(judge_n[has_verdict_n].mean()) if has_verdict_n.any() else None
    # A row without a verdict stays: left out, the score would be of the rows that the judge can
    # read. Any constant in its place leaves the estimate unbiased; the mean costs least.
    judge_n = np.where(has_verdict_n, judge_n, entry["judge"] or 0.0)
    if rated_n.sum() < 2:
        return entry | {"rated": int(rated_n.sum()), "value": None}
    people_n = np.nanmean(people_nxR[rated_n], axis=1)
    found = corrected.mean(people_n, judge_n[rated_n], judge_n[~rated_n])
    least, most = group.result.get("scale", (0.0, 1.0))
    low, high = min(max(found.low, least), found.value), max(min(found.high, most), found.value)
    return entry | dataclasses.asdict(dataclasses.replace(found, low=low, high=high))
