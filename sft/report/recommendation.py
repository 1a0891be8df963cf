"""A recommendation as lines for a terminal."""

from ml_collections import ConfigDict

from sft import config as configs
from sft.model.specs import Spec
from sft.tune.recommend import Result


def lines(found: Result, spec: Spec, config: ConfigDict, slice_name: str) -> list[str]:
    """For a person."""
    now = dict(configs.flatten(config))
    text = [
        f"{found['examples']:,} training examples of {found['context']:.0f} tokens in the mean, "
        f"{spec.name}: the guide's row is {found['row']}.",
        f"Learning rate: {found['multiplier']:g} x {found['base_rate']:g}, the base rate of "
        f"{spec.name} (sft/tune/table.py).",
        *(f"By our rule, {rule}." for rule in found["rules"]),
        "",
        *(
            f"  --config.{key}={value}" + ("" if now[key] != value else "  (as it is)")
            for key, value in found["changes"].items()
        ),
        "",
        f"{found['steps']:,} steps, {found['tokens']:,} tokens.",
    ]
    if found["hours"] is not None:
        text.append(
            f"On {slice_name} at least {found['hours']:.2g} hours of steps, at peak rates "
            "(sft plan says whether they fit)."
        )
    return text + [f"warning: {warning}" for warning in found["warnings"]]
