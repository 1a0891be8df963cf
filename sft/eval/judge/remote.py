"""Many requests to one endpoint: some at a time, patient where it is busy, giving up in the end."""

import random
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from sft.errors import UserError
from sft.eval.judge.backend import Reply, Unreachable

CHARACTERS = 4  # of a token, about: only for the estimate before the first request
HOPELESS = 5  # prompts refused, and none taken, after which it is not the prompts


class Busy(Exception):
    """Worth asking again. ``wait``: the seconds that the endpoint asks for, if it does."""

    def __init__(self, message: str, wait: float | None = None):
        super().__init__(message)
        self.wait = wait


class Refused(Exception):
    """The endpoint does not take this prompt, and would not take it later."""


class _Stopped(Exception):
    """Another request has failed for good."""


class Endpoint:
    """See ``Backend``.

    Args:
      send: one prompt to one reply. Raises ``Busy``, ``Refused`` or ``UserError``.
      concurrency: requests under way at a time.
      attempts: requests for one reply.
      max_wait: seconds between two of these at most.
    """

    def __init__(
        self,
        send: Callable[[str], Reply],
        identity: dict[str, Any],
        *,
        concurrency: int,
        attempts: int,
        max_wait: float,
    ):
        self.identity = identity
        self._send, self._concurrency = send, concurrency
        self._attempts, self._max_wait = attempts, max_wait

    def count(self, prompts: Sequence[str]) -> int:
        return sum(len(prompt) for prompt in prompts) // CHARACTERS

    def ask(self, prompts: Sequence[str], on_reply: Callable[[int, Reply], None]) -> None:
        stop, lock = threading.Event(), threading.Lock()
        failures: list[BaseException] = []
        taken = refused = 0

        def work(index: int) -> None:
            nonlocal taken, refused
            try:
                reply = self._patiently(prompts[index], stop)
                on_reply(index, reply)
                with lock:
                    refused += bool(reply.refused)
                    taken += not reply.refused
                    if not taken and refused >= HOPELESS:
                        raise UserError(f"{self._name}: refuses every prompt: {reply.refused}")
            except _Stopped:
                pass
            except BaseException as error:
                failures.append(error)
                stop.set()

        # What is under way when one fails, or at Ctrl-C, is waited for: it has been paid.
        with ThreadPoolExecutor(self._concurrency) as pool:
            try:
                for future in [pool.submit(work, index) for index in range(len(prompts))]:
                    future.result()
            finally:
                stop.set()
        if failures:
            raise failures[0]

    def _patiently(self, prompt: str, stop: threading.Event) -> Reply:
        for attempt in range(self._attempts):
            if stop.is_set():
                raise _Stopped
            try:
                return self._send(prompt)
            except Refused as error:
                return Reply("", 0, 0, refused=str(error))
            except Busy as busy:
                if busy.wait is not None and busy.wait > self._max_wait:
                    raise Unreachable(
                        f"{self._name}: asks to wait {busy.wait:.0f} s ({busy}), longer than "
                        f"config.judge.max_wait = {self._max_wait:g}."
                    ) from None
                if attempt + 1 == self._attempts:
                    raise Unreachable(
                        f"{self._name}: no reply in {self._attempts} attempts ({busy})."
                    ) from None
                stop.wait(max(busy.wait or 0.0, delay(attempt, self._max_wait)))
        raise AssertionError("config.judge.attempts is at least 1")

    @property
    def _name(self) -> str:
        return f"{self.identity['backend']} {self.identity['url'] or 'endpoint'}"


def delay(attempt: int, max_wait: float) -> float:
    """Seconds before the next attempt: 1, 2, 4 … up to ``max_wait``, less up to half by chance."""
    return min(2.0**attempt, max_wait) * random.uniform(0.5, 1.0)


def failed(status: int, message: str, headers: Mapping[str, str], key_variable: str) -> Exception:
    """What an HTTP status of 400 or more means for the run."""
    said = f"HTTP {status}: {' '.join(message.split())[:300]}"
    if status in (401, 403):
        return UserError(f"the judge's endpoint: {said}. Check the key in ${key_variable}.")
    if status == 404:
        return UserError(
            f"the judge's endpoint: {said}. Check config.judge.model and config.judge.url."
        )
    if status in (408, 409, 425, 429) or status >= 500:
        return Busy(said, retry_after(headers.get("retry-after", "")))
    return Refused(said)


def retry_after(value: str) -> float | None:
    """Seconds in a Retry-After header, which gives a number or a date; ``None`` = no such thing."""
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None
