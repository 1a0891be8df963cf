"""The lock of a run directory in a bucket: an object that only one process can make.

Cloud Storage writes an object on the condition that it is still the one that was seen (its
generation; 0 = there is none), so of two processes one gets the lock. There is no operating system
to let go of it: who holds it writes it anew every few seconds, and who finds it watches for that.
"""

import contextlib
import json
import os
import sys
import time
import uuid
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sft.errors import BAD_INPUT, UserError
from sft.run import bucket, holder
from sft.run.directory import path_of

if TYPE_CHECKING:
    from google.cloud.storage import Blob

RETRY = 30.0  # seconds for which a bucket that refuses for the moment is asked again


class _Lock:
    """The object, and this process as who holds it or wants to."""

    def __init__(self, blob: "Blob", path: Path):
        from google.cloud.storage.retry import DEFAULT_RETRY

        self._blob, self._path = blob, path
        self._limits = {"timeout": 10.0, "retry": DEFAULT_RETRY.with_timeout(RETRY)}
        self._id = uuid.uuid4().hex
        self._generation = 0

    def take(self) -> None:
        """Makes the object, or follows a holder that has fallen silent.

        Raises:
          UserError: it is held.
        """
        generation = 0
        while not self._put(generation):
            found, generation = self._read()
            if found.get("id") == self._id:  # written, but the answer was lost
                self._generation = generation
                return
            if generation:
                generation = self._silent(found, generation)

    def _silent(self, other: dict[str, Any], generation: int) -> int:
        """The generation to follow: this one after ``PATIENCE`` seconds, 0 if it has ended."""
        holder.say_watching(self._path, other)
        end = time.monotonic() + holder.PATIENCE
        while time.monotonic() < end:
            time.sleep(min(holder.BEAT, holder.PATIENCE) / 5)
            _, now = self._read()
            if now not in (0, generation):
                raise holder.taken(self._path, other)
            if not now:
                return 0
        return generation

    def beat(self, number: int) -> None:
        """Gives a sign of life. Ends the process if another has taken its place, which happens to
        one that was stopped or cut off for long: two must never write to one directory."""
        if self._put(self._generation, number):
            return
        found, generation = self._read()
        if generation and found.get("id") != self._id:
            print(
                f"sft: {self._path}: {holder.name_of(found)} has taken over, after no sign of life "
                f"from this process for {holder.PATIENCE:.0f} s. This one ends.",
                file=sys.stderr,
                flush=True,
            )
            os._exit(BAD_INPUT)
        self._generation = generation  # removed by hand, or the answer to an earlier beat was lost

    def release(self) -> None:
        self._blob.delete(if_generation_match=self._generation, **self._limits)

    def _put(self, generation: int, beat: int = 0) -> bool:
        """Whether it could be written over that generation."""
        from google.api_core.exceptions import PreconditionFailed

        text = json.dumps(holder.ourselves(beat) | {"id": self._id})
        try:
            self._blob.upload_from_string(
                text, "application/json", if_generation_match=generation, **self._limits
            )
        except PreconditionFailed:
            return False
        self._generation = self._blob.generation
        return True

    def _read(self) -> tuple[dict[str, Any], int]:
        """Who holds it, and its generation; ``({}, 0)`` where nobody does."""
        from google.api_core.exceptions import NotFound, PreconditionFailed

        while found := self._blob.bucket.get_blob(self._blob.name, **self._limits):
            seen = {"if_generation_match": found.generation}
            try:
                other = json.loads(found.download_as_bytes(**seen, **self._limits))
            except (NotFound, PreconditionFailed):  # replaced in between
                continue
            except ValueError:  # not ours
                other = {}
            return (other if isinstance(other, dict) else {}), found.generation
        return {}, 0


@contextlib.contextmanager
def held(workdir: str) -> Generator[None]:
    """Holds ``workdir/lock`` while the block runs.

    Raises:
      UserError: another run holds it; names the process. There is no such bucket, or no permission
        to do what a run has to: said here, not at the first checkpoint.
    """
    ours = _taken(workdir)
    try:
        with holder.beating(ours.beat):
            yield
    finally:
        with contextlib.suppress(Exception):  # then the next one waits for it
            ours.release()


def _taken(workdir: str) -> _Lock:
    path = path_of(workdir) / "lock"
    name, _, inside = str(path).removeprefix(bucket.SCHEME).partition("/")
    try:
        from google.cloud import storage
        from google.cloud.storage.retry import DEFAULT_RETRY

        # Orbax asks for the bucket too, when it removes a checkpoint.
        found = storage.Client().get_bucket(name, retry=DEFAULT_RETRY.with_timeout(RETRY))
        ours = _Lock(found.blob(inside), path)
        ours.take()
    except UserError:
        raise
    except Exception as error:
        said = bucket.said(error)
        if said is None:
            raise
        raise UserError(f"--workdir={workdir}: {said}. Choose another place.") from None
    return ours
