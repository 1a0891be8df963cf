"""How far a judge can be trusted, as lines for a terminal."""

from typing import Any

from sft.eval.judge import agreement
from sft.eval.judge.calibrate import FEW


def lines(result: dict[str, Any]) -> list[str]:
    """What ``calibrate`` returns, for a person."""
    who, measured = result["ratings"], result["agreement"]
    fit = "fit" if result["fit"] else "UNFIT: do not rely on its scores alone"
    found = [
        f"judge {result['judge']['model']}, {result['mode']}: {fit} ({result['why']}).",
        f"{who['rows']} rows rated by {len(who['raters'])}; {who['rows_without_verdict']} of them "
        f"without a verdict of the judge; {who['unrated_lines']} lines without a rating.",
        f"{'':<18}{'kappa':>22}{'weighted kappa':>22}{'Spearman':>22}{'alpha':>22}{'rows':>7}",
    ]
    table = {"judge, people": measured["judge"]}
    table |= {f"  {arm}": values for arm, values in measured["by_arm"].items()}
    if measured["people"]:
        table["people, people"] = measured["people"]
    for name, values in table.items():
        cells = [_cell(values[key]) for key in (*agreement.NAMES, "alpha")]
        found.append(f"{name:<18}" + "".join(f"{c:>22}" for c in cells) + f"{values['rows']:>7}")
    slope = result["length_bias"]
    text = _cell({"value": slope["slope"], "interval": slope["interval"]})
    found.append(f"judge beyond people for each doubling of the length: {text}")
    if "position_bias" in result:
        place = result["position_bias"]
        people = _cell({"value": place["people"]["bias"], "interval": place["people"]["interval"]})
        judges = ", ".join(f"{v:.3f} ({k})" for k, v in place["judge"].items() if v is not None)
        found.append(f"preference for what is shown first: judge {judges}; people {people}")
    for entry in result["corrected"]:
        found.append(_corrected_line(entry))
    return found


def _corrected_line(entry: dict[str, Any]) -> str:
    where = f"{entry['arm']} on {entry['set']}"
    judge = "nothing" if entry["judge"] is None else f"{entry['judge']:.3f}"
    if entry["value"] is None:
        return f"{where}: judge {judge}; too few rated rows to correct it ({entry['rated']})."
    few = f"; fewer than {FEW}: the interval is rough" if entry["rated"] < FEW else ""
    return (
        f"{where}: judge {judge}, corrected by people {entry['value']:.3f} [{entry['low']:.3f}, "
        f"{entry['high']:.3f}] ({entry['rated']} of {entry['rated'] + entry['judged']} rows rated"
        f"{few})."
    )


def _cell(entry: dict[str, Any]) -> str:
    if entry["value"] is None:
        return "undefined"
    bounds = entry["interval"]
    return f"{entry['value']:.3f}" + (f" [{bounds[0]:.3f}, {bounds[1]:.3f}]" if bounds else "")
