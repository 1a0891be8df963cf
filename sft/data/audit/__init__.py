"""The numbers a person needs before the first step: what the model will be trained on.

``count`` is fast and runs with every training; ``examine`` looks at everything, and at how
validation, test and production differ from training. Both return plain values that
``json.dumps`` accepts; ``sft.report.audit`` shows what ``examine`` returns.
"""

from sft.data.audit.report import examine
from sft.data.audit.sets import Set, count

__all__ = ["Set", "count", "examine"]
