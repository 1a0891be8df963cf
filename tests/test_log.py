import errno
import time

import pytest

from sft.errors import UserError
from sft.run import log


@pytest.mark.timeout(60)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_full_disk_under_tensorboard_is_told_and_not_waited_for(tmp_path, monkeypatch):
    """Its thread ends at the first error, and the queue in front of it fills."""
    written = log.MetricsLog(tmp_path, 0)

    def full(event):
        raise OSError(errno.ENOSPC, "No space left on device")

    worker = written._board._get_file_writer().event_writer._worker
    monkeypatch.setattr(worker._record_writer, "write_event", full)
    with pytest.raises(UserError, match="the disk is full"):
        for step in range(1, 1000):
            written.write("train", step, 0.1, loss=1.0)
            time.sleep(0.01)
    written.close()
    assert [row["step"] for row in log.read(tmp_path)] == list(range(1, step + 1))
