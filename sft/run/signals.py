"""SIGTERM and Ctrl-C, noted instead of obeyed at once."""

import signal
from types import FrameType
from typing import Any, Self


class Signals:
    """Remembers a signal that comes meanwhile; a second one is not held. Used by ``with``.

    Attributes:
      caught: name of the signal that this process got, or ``""``.
    """

    def __init__(self) -> None:
        self.caught = ""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.caught = signal.Signals(number).name
        signal.signal(number, self._before[number])
