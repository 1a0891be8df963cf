"""A language model as judge of answers, and how far it can be trusted.

``sft eval judge`` asks for verdicts, ``sft eval rate`` makes a page on which people give theirs,
and ``sft eval calibrate`` compares the two and corrects the judge's score by people's.

Text becomes a verdict in ``verdicts``; ``backends`` are the models that can be asked; ``cache``
keeps every reply, so that nothing is paid for twice.
"""

from sft.eval.judge.backend import Backend
from sft.eval.judge.backends import make
from sft.eval.judge.cache import Cache
from sft.eval.judge.criteria import Case, passes
from sft.eval.judge.verdicts import Verdict

__all__ = ["Backend", "Cache", "Case", "Verdict", "make", "passes"]
