"""Text that the answers of several conversations repeat: windows of tokens, and whole answers.

The unit is a window of ``length`` tokens that are trained and lie in one answer. Tokens of forms,
which many rows share on purpose (``templates``), are neither counted nor masked: a window goes on
behind a form. What counts as its earlier copy is the scope. ``group``: a copy in a group of lower
rank, so that code which a conversation prints again with an edit is left alone, as is all else that
a group repeats, except for whole answers of another row. ``record``: any earlier copy that does not
overlap, in the same answer too.

Of what repeats, the first copy stays (Kandpal et al. 2022: what is memorised grows with the number
of copies), and the others are to become context, which is read but not trained: cutting them out
would leave prompts without answers. ``keep="none"``, ``scope="record"`` and cutting together are
the ExactSubstr of Lee et al. 2021, meant for raw text.

The result depends on the rows and the options alone: not on the engine, its passes or its memory.
Beside the memory of the engine, a search takes about 20 bytes a token. With ``engine="beam"`` many
machines share the work of ``policy``, see ``sft.data.dedup.beam``.
"""

from typing import Any

import numpy as np

from sft.data.batches.examples import Examples
from sft.data.dedup import repeats, templates, turns
from sft.data.dedup.repeats import Marks, Options
from sft.data.dedup.spans import ACTIONS, Found, join, to_drop
from sft.data.dedup.stretches import Stream, stream

__all__ = ["ACTIONS", "Found", "Options", "find", "policy"]


def find(
    examples: Examples,
    groups: np.ndarray,
    origins: np.ndarray,
    options: Options,
    kept: np.ndarray | None = None,
) -> Found:
    """The text that is repeated in the ``kept`` rows (bool ``[n]``; ``None`` = all).

    The other rows count for nothing, nor towards forms. The engine must be one of this machine.

    Args:
      groups: int64 ``[n]``, the rank of each row's group: of two groups the lower one is kept.
      origins: int64 ``[n]``, the source of each row, counted from 0.
    """
    kept = np.ones(len(examples), bool) if kept is None else kept
    forms = templates.find(examples, origins, options, kept)
    said = stream(examples, kept, forms.tokens)
    marks = repeats.mark(examples, groups, said, options, kept)
    return _spans(examples, groups, said, options, kept, marks, forms.texts)


def policy(
    examples: Examples,
    groups: np.ndarray,
    origins: np.ndarray,
    options: Options,
    action: str = "mask",
    drop_share: float = 0.8,
    min_trained: int = 8,
) -> tuple[np.ndarray, Found]:
    """Which rows to drop for the text they repeat, and the spans of the others.

    Of the rows with a span, ``mask`` and ``cut`` drop those of whose trained tokens ``drop_share``
    or more are in spans, or fewer than ``min_trained`` are not (or none); ``drop`` drops all, and
    ``report`` none. A dropped row may have held the copy that stays, so the kept rows are searched
    again, with the forms of the first search. That only ever takes tokens out of spans, so no
    further row is to be dropped. With ``keep="none"`` every copy goes, whichever rows are dropped.

    After masking and without forms, a second run changes nothing: forms are a matter of counts,
    which change. Cutting joins what was apart, so it may make new windows.

    Args:
      groups: int64 ``[n]``, as for ``find``.
      origins: int64 ``[n]``, as for ``find``.

    Returns:
      bool ``[n]``; and the spans, none in a dropped row.

    Raises:
      UserError: an unknown action; what ``sft.data.dedup.beam.policy`` raises.
    """
    repeats.check("action", action, action in ACTIONS, f"one of {', '.join(ACTIONS)}")
    if options.engine == "beam":
        from sft.data.dedup.beam import policy as beyond

        return beyond.policy(examples, groups, origins, options, action, drop_share, min_trained)
    everything = np.ones(len(examples), bool)
    forms = templates.find(examples, origins, options, everything)
    said = stream(examples, everything, forms.tokens)
    marks = repeats.mark(examples, groups, said, options, everything)
    found = _spans(examples, groups, said, options, everything, marks, forms.texts)
    dropped = to_drop(examples, found, action, drop_share, min_trained)
    if options.keep == "none" or not dropped.any():
        return dropped, found.select(~dropped[found.rows])
    marks = repeats.mark(examples, groups, said, options, ~dropped, marks)
    return dropped, _spans(examples, groups, said, options, ~dropped, marks, forms.texts)


def _spans(
    examples: Examples,
    groups: np.ndarray,
    said: Stream,
    options: Options,
    kept: np.ndarray,
    marks: Marks,
    texts: list[dict[str, Any]],
) -> Found:
    whole = None
    if options.compares_answers:
        whole = turns.find(examples, groups, said, options, kept)
    return join(examples, said, marks, whole, options, texts)
