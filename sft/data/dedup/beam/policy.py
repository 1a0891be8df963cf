"""``substring.policy`` on the workers of a Beam pipeline; the result is the same."""

import dataclasses

import numpy as np

from sft.data.batches.examples import Examples
from sft.data.dedup import templates
from sft.data.dedup.beam import pipeline, shards
from sft.data.dedup.beam.work import SPAN, Job
from sft.data.dedup.repeats import Options
from sft.data.dedup.spans import Found


@dataclasses.dataclass(frozen=True)
class Layout:
    """How the work is cut up; no matter for the result.

    Attributes:
      tokens: of a shard. A worker holds some 150 bytes for each.
      partitions: of the members that are compared; 0 = one for as many tokens as a shard has, and
        never more than 4,096. A worker holds some 120 bytes for each member in one.
    """

    tokens: int = 2**21
    partitions: int = 0

    def partitions_of(self, tokens: int) -> int:
        """For so many tokens in all."""
        return self.partitions or min(max(1, tokens // self.tokens), 4096)


def policy(
    examples: Examples,
    groups: np.ndarray,
    origins: np.ndarray,
    options: Options,
    action: str,
    drop_share: float,
    min_trained: int,
    layout: Layout | None = None,
) -> tuple[np.ndarray, Found]:
    """Arguments and result as of ``substring.policy``.

    Here, on the driver, are held: one shard at a time while they are written, some numbers for each
    row, and the spans. The tokens may be memory-mapped.

    Raises:
      UserError: Beam is not installed, does not know an option, or refuses one; the scratch folder
        cannot be used.
    """
    found, layout = pipeline.options(options.beam), layout or Layout()
    if not len(examples):
        return np.zeros(0, bool), _found(np.zeros(0, SPAN), [])
    _, dense = np.unique(groups, return_inverse=True)  # only their order matters
    job = Job(
        folder="",
        bounds=shards.cut(examples.starts, layout.tokens),
        least=templates.least_rows(origins, options.template_share, options.template_rows),
        partitions=layout.partitions_of(len(examples.tokens)),
        options=options,
        action=action,
        drop_share=drop_share,
        min_trained=min_trained,
    )
    with pipeline.scratch(found) as folder:
        job = dataclasses.replace(job, folder=folder)
        shards.write(folder, examples, dense.astype(np.int64), origins, job.bounds)
        pipeline.run(job, found)
        outcomes = [*shards.outcomes(folder, len(job.bounds) - 1)]
    dropped = np.concatenate([outcome["dropped"] for outcome in outcomes])
    spans = np.concatenate([outcome["spans"] for outcome in outcomes])
    listed = np.concatenate([outcome["templates"] for outcome in outcomes])
    return dropped, _found(spans, _texts(listed, examples.tokens, templates.length_of(options)))


def _texts(listed: np.ndarray, tokens: np.ndarray, length: int) -> list[dict]:
    """``templates.texts`` of TEMPLATE ``[t]``."""
    if not len(listed):
        return []
    pairs = np.stack([listed["high"], listed["low"]], axis=1)
    _, first, ids = np.unique(pairs, axis=0, return_index=True, return_inverse=True)
    found = templates.Windows(
        positions=listed["position"],
        rows=listed["row"],
        ids=ids.reshape(-1),
        counts=listed["rows"][first],
        origins=listed["origin"][first],
    )
    return templates.texts([found], tokens, length)


def _found(spans: np.ndarray, texts: list[dict]) -> Found:
    columns = (spans[name].copy() for name in ("row", "start", "stop", "owner"))
    return Found(*columns, templates=texts)
