"""A plan as an object for programs and as lines for people."""

import dataclasses
from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict

from sft.mesh.slices import GIB, Slice
from sft.model.specs import Spec
from sft.plan.compile import Memory

if TYPE_CHECKING:
    from sft.mesh.axes import Layout
    from sft.plan.search import Outcome, Tried


def costs(
    spec: Spec, config: ConfigDict, share: float, source: str, roofs: dict[str, float]
) -> dict[str, Any]:
    """What one step does, by counting: no compiler is asked.

    Args:
      share: of the positions, those with loss, and ``source``, where that is from.
      roofs: seconds, as of ``roofline.seconds``.
    """
    from sft.model import flops

    tokens = config.train.batch_size * config.data.max_length
    counted = flops.train_step(
        spec, config, config.train.batch_size, config.data.max_length, share * tokens
    )
    bound = max(roofs, key=lambda name: roofs[name])
    return {
        "tokens_per_step": tokens,
        "flops_per_step": counted.model,
        "recomputed_flops_per_step": counted.recomputed,
        "trained_share": share,
        "trained_share_from": source,
        "roofline_seconds": roofs[bound],
        "bound": bound,
        "roofline": roofs,
    }


def result(
    slice_: Slice,
    layout: "Layout",
    memory: Memory,
    seconds: float,
    outcome: "Outcome",
    costs: dict[str, Any],
) -> dict[str, Any]:
    """The object of ``--json``.

    Returns:
      ``fits``, ``slice``, ``devices``, ``gib_per_device`` (``weights``, ``adapters`` with the
      optimiser's moments, ``temporaries``, ``total``, ``limit``; and ``batch``, ``padding``,
      ``code``), ``compile_seconds``, ``tokens_per_step``, ``flops_per_step`` (of the model, without
      what is computed again), ``roofline_seconds`` (the largest of ``roofline``), ``bound`` (its
      name), and more. ``total`` is the compiler's peak, which need not be the sum of the parts.
      Where it does not fit, it is what the compiler asked for, or ``None``
      where it did not say, ``total_is_at_least`` says that it was not asked, and what ``advice``
      returns is added.
    """
    parts = {n: size / GIB for n, size in dataclasses.asdict(memory).items() if n != "peak"}
    total = None if outcome.needed is None else outcome.needed / GIB
    return {
        "fits": outcome.fits,
        "slice": slice_.name,
        "cloud": slice_.cloud,
        "devices": slice_.devices,
        "hosts": slice_.hosts,
        "mesh": dataclasses.asdict(layout),
        "gib_per_device": {
            **parts,
            "total": total,
            "limit": slice_.generation.hbm_bytes / GIB,
        },
        "total_is_at_least": outcome.at_least,
        "compile_seconds": seconds,
        **costs,
    }


def advice(tried: list["Tried"]) -> dict[str, Any]:
    """``tried``, and as ``fitting`` the flags and the slice of the attempt that fits, or None."""
    last = tried[-1] if tried else None
    fitting = None
    if last and last.outcome.fits:
        fitting = {"slice": last.slice_.name, "flags": flags(last), "changes": last.changes}
    attempts = [
        {
            "slice": each.slice_.name,
            "changes": each.changes,
            "fits": each.outcome.fits,
            "gib": None if each.outcome.needed is None else each.outcome.needed / GIB,
            "why": each.outcome.why,
        }
        for each in tried
    ]
    return {"tried": attempts, "fitting": fitting}


def flags(tried: "Tried") -> str:
    return " ".join(f"--config.{key}={value}" for key, value in tried.changes.items())


def head(model: str, config: ConfigDict, slice_: Slice, layout: "Layout") -> str:
    """What is about to be compiled."""
    return (
        f"{model} on {slice_.name} ({slice_.cloud}: {slice_.chips} chip(s), {slice_.hosts} "
        f"host(s), {slice_.devices} device(s)), mesh data {layout.data} x "
        f"fsdp {layout.fsdp} x sequence {layout.sequence} x tensor {layout.tensor}\n"
        f"{config.train.batch_size} rows of {config.data.max_length} tokens a step, "
        f"{config.train.microbatches} microbatch(es), remat {config.model.remat}, rank "
        f"{config.lora.rank}. Compiling takes minutes for a large model."
    )


def lines(found: dict[str, Any], outcome: "Outcome") -> list[str]:
    """The plan of the configuration as it is."""
    gib, roofs = found["gib_per_device"], found["roofline"]
    verdict = "fits" if found["fits"] else "does not fit"
    names = {"adapters": "adapters and moments"}
    sizes = {name: size for name, size in gib.items() if name not in ("total", "limit")}
    parts = ", ".join(f"{names.get(name, name)} {size:.2f}" for name, size in sizes.items())
    at_once = gib["total"] is None or sum(sizes.values()) < gib["total"] + 0.01
    tera = 1e-12
    return [
        f"{verdict}: {needs(outcome, gib['limit'])} on each device, compiled in "
        f"{found['compile_seconds']:.0f} s",
        f"  GiB: {parts}{'' if at_once else '; not all at once'}",
        f"a step: {found['tokens_per_step']} tokens, {found['trained_share']:.1%} trained "
        f"({found['trained_share_from']}); {found['flops_per_step'] * tera:.4g} TFLOP, and "
        f"{found['recomputed_flops_per_step'] * tera:.4g} again",
        f"  at the best: {', '.join(f'{name} {s:.3g} s' for name, s in roofs.items())}; bound by "
        f"{found['bound']}. Counted from peak rates; nothing was run.",
    ]


def needs(outcome: "Outcome", limit_gib: float) -> str:
    """As in ``needs 65.13 of 31.24 GiB``."""
    if outcome.needed is None:
        return outcome.why or "unknown"
    words = "needs at least" if outcome.at_least else "needs"
    return f"{words} {outcome.needed / GIB:.2f} of {limit_gib:.2f} GiB"


def tried_line(tried: "Tried", first: Slice) -> str:
    """One attempt."""
    where = "" if tried.slice_ == first else f"--slice={tried.slice_.name} "
    verdict = "fits, " if tried.outcome.fits else ""
    limit = tried.slice_.generation.hbm_bytes / GIB
    return f"{where}{flags(tried)}: {verdict}{needs(tried.outcome, limit)}"


def advice_line(found: dict[str, Any]) -> str:
    """What to do."""
    fitting = found["fitting"]
    if fitting is None:
        return (
            "Nothing that was tried fits. Shorten config.data.max_length, or take a smaller model."
        )
    return f"What fits: --slice={fitting['slice']} {fitting['flags']}"
