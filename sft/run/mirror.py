"""Files that grow, for a bucket: written here, and sent there whole now and then."""

import shutil
import tempfile
import threading
import time
from pathlib import Path

from sft.errors import UserError
from sft.run.directory import write_bytes

EVERY = 60.0  # seconds between two times without a checkpoint


class Mirror:
    """A folder on this machine, whose files ``target`` in a bucket gets as objects.

    Objects cannot be appended to. So each time a file that has grown is sent as a whole; what is
    lost with the machine is what came after the last time.
    """

    def __init__(self, target: Path):
        self.folder = Path(tempfile.mkdtemp(prefix="sft-log."))
        self._target = target
        self._sent: dict[str, int] = {}  # sizes by name: they only grow
        self._lock = threading.Lock()
        self._last = time.monotonic()
        self._thread: threading.Thread | None = None

    def changed(self) -> None:
        """Sends in the background, if it was not done for ``EVERY`` seconds."""
        if time.monotonic() - self._last < EVERY or (self._thread and self._thread.is_alive()):
            return
        self._thread = threading.Thread(target=self._try_to_send, daemon=True)
        self._thread.start()

    def send(self) -> None:
        """Returns when the bucket has everything.

        Raises:
          UserError: it refuses.
        """
        with self._lock:  # an older state never comes after a newer one
            self._last = time.monotonic()
            for file in sorted(self.folder.iterdir()):
                content = file.read_bytes()
                if self._sent.get(file.name) != len(content):
                    write_bytes(self._target / file.name, content)
                    self._sent[file.name] = len(content)

    def close(self) -> None:
        """Sends, and removes the folder.

        Raises:
          UserError: the bucket refuses; says where the files are.
        """
        try:
            self.send()
        except UserError as error:
            raise UserError(f"{error} The log is in {self.folder}.") from None
        shutil.rmtree(self.folder, ignore_errors=True)

    def _try_to_send(self) -> None:
        try:
            self.send()
        except UserError:  # the next checkpoint says so
            self._last = time.monotonic()
