"""``sft``, but the host ``KILL_HOST`` kills itself while it saves the step ``KILL_STEP``.

Host 0 dies when all is written and only the rename to the final name is missing; another host when
it has started to write.
"""

import os
import signal

from orbax.checkpoint import CheckpointManager
from orbax.checkpoint._src.path import atomicity

from sft import cli

STEP, HOST = os.environ["KILL_STEP"], os.environ["KILL_HOST"]
finalize, save = atomicity.AtomicRenameTemporaryPath.finalize, CheckpointManager.save


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def die_before_rename(self, *args, **kwargs):
    if os.path.basename(str(self.get_final())) == STEP:
        die()
    return await finalize(self, *args, **kwargs)


def die_at_work(self, step, *args, **kwargs):
    result = save(self, step, *args, **kwargs)
    if str(step) == STEP:
        die()
    return result


if os.environ["SFT_PROCESS"] == HOST:
    if HOST == "0":
        atomicity.AtomicRenameTemporaryPath.finalize = die_before_rename
    else:
        CheckpointManager.save = die_at_work
cli.run()
