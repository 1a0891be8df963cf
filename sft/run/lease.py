"""One run at a time in a directory: a lock that a dead process cannot keep.

On a disk the operating system helps (``sft.run.lock``); in a bucket the signs of life of the holder
are all there is to go by (``sft.run.bucket_lock``).
"""

import contextlib
from collections.abc import Generator

from sft.run import bucket, bucket_lock, hosts, lock


@contextlib.contextmanager
def held(workdir: str) -> Generator[None]:
    """Holds ``workdir/lock`` while the block runs; the first host does, for all of them.

    Raises:
      UserError: another run holds it; names the process. The directory cannot be made, or the
        bucket refuses.
    """
    if not hosts.is_first():
        yield
        return
    with (bucket_lock if bucket.holds(workdir) else lock).held(workdir):
        yield
