"""Errors that a user can act on, and the process exit codes.

A ``UserError`` is bad usage, config, data or weights: the command prints its one line and exits
with 2, without a traceback. Anything else that escapes is a bug and exits with 1.
"""

DONE = 0
BUG = 1
BAD_INPUT = 2
DOES_NOT_FIT = 3
PREEMPTED = 42  # saved; start the same command again


class UserError(Exception):
    """Message: where (file, line, field), what was found, what was expected, what to do."""


class AuditFailed(UserError):
    """The data have errors, and ``--strict`` asks to fail for them. All is written, and ``result``
    is what ``--json`` prints."""

    def __init__(self, message: str, result: dict):
        super().__init__(message)
        self.result = result


class Preempted(Exception):
    """A signal asked the run to stop, and its state is safely on disk."""


class DoesNotFit(Exception):
    """A plan that does not fit the slice. ``result`` is what ``--json`` prints."""

    def __init__(self, message: str, result: dict):
        super().__init__(message)
        self.result = result
