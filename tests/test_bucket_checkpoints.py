"""Checkpoints in a bucket, of a few numbers each."""

import fake_bucket
import pytest
from test_checkpoint import equal, make_state, opened, save

from sft.errors import UserError

server, bucket = fake_bucket.server, fake_bucket.bucket
RUN = "gs://bucket/run"


def test_the_newest_and_the_best_are_kept_and_read_by_another_process(bucket):
    checkpoints = opened(RUN, latest=1, best=1)
    save(checkpoints, {1: 1.0, 2: 3.0, 3: 2.0})
    checkpoints.close()
    again = opened(RUN, latest=1, best=1)
    assert again.steps() == [1, 3] and again.latest() == 3
    state, position = again.restore(1, make_state(0))
    equal(state, make_state(1))
    assert position == {"batches": 1}
    assert bucket.names("run/checkpoints/2/") == []
    again.close()


@pytest.mark.parametrize("code", [403, 404])
def test_a_bucket_that_refuses_costs_no_earlier_checkpoint(bucket, code):
    checkpoints = opened(RUN)
    save(checkpoints, {1: 1.0})
    bucket.refuses = lambda method, address: (
        code if method == "POST" and "checkpoints/2/" in address else None
    )
    with pytest.raises(UserError, match=f"{RUN}/checkpoints: the bucket refuses") as caught:
        save(checkpoints, {2: 0.5})
    assert "\n" not in str(caught.value)
    assert ("roles/storage.objectUser" in str(caught.value)) == (code == 403)
    bucket.refuses = lambda method, address: None
    again = opened(RUN)
    assert again.steps() == [1]
    save(again, {2: 0.5})
    assert again.steps() == [1, 2]
    equal(again.restore(2, make_state(0))[0], make_state(2))
    again.close()


def test_a_checkpoint_that_is_not_whole_is_none(bucket):
    checkpoints = opened(RUN)
    save(checkpoints, {1: 1.0, 2: 0.5})
    checkpoints.close()
    bucket.delete("run/checkpoints/2/commit_success.txt", {})
    again = opened(RUN)
    assert again.latest() == 1
    save(again, {2: 0.4})
    assert again.steps() == [1, 2]
    again.close()


def test_a_bucket_that_is_busy_is_asked_again(bucket):
    seen: dict[str, int] = {}

    def refuse(method, address):
        seen[address] = seen.get(address, 0) + 1
        return (
            429 if method == "POST" and "manifest.ocdbt" in address and seen[address] == 1 else None
        )

    bucket.refuses = refuse
    checkpoints = opened(RUN)
    save(checkpoints, {1: 1.0})
    checkpoints.close()
    assert max(seen.values()) > 1 and opened(RUN).steps() == [1]
