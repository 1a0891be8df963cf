import errno
import os
import shutil
import subprocess
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sft.config import default
from sft.errors import UserError
from sft.train.checkpoint import Checkpoints
from sft.types import TrainState


def make_state(step, size=64):
    rng = np.random.default_rng(step)
    values = {name: jnp.array(rng.standard_normal(size), jnp.float32) for name in "AB"}
    return TrainState(
        step=jnp.int32(step),
        trainable={"q": values},
        opt_state=({"count": jnp.int32(step)}, values, ()),
        rng=jax.random.key_data(jax.random.key(step)),
    )


def opened(workdir, latest=2, best=1):
    config = default()
    config.train.keep_latest, config.train.keep_best = latest, best
    return Checkpoints(workdir, config)


def save(checkpoints, losses):
    for step, loss in losses.items():
        checkpoints.save(step, make_state(step), {"batches": step}, loss)
        checkpoints.wait()


def equal(a, b):
    assert jax.tree.all(
        jax.tree.map(lambda x, y: np.array_equal(x, y) and x.dtype == y.dtype, a, b)
    )


@pytest.mark.parametrize(
    "losses, latest, best, kept",
    [
        pytest.param({1: 3.0, 2: 1.0, 3: 2.0, 4: 4.0, 5: 5.0}, 2, 1, [2, 4, 5], id="overfitting"),
        pytest.param({1: 3.0, 2: 2.0, 3: 1.0}, 1, 1, [3], id="newest is best"),
        pytest.param({1: 2.0, 2: 1.0, 3: 1.0, 4: 3.0}, 1, 1, [2, 4], id="tie to the earlier"),
        pytest.param({1: 1.0, 2: 3.0, 3: 2.0, 4: 4.0, 5: 5.0}, 1, 2, [1, 3, 5], id="best two"),
        pytest.param({1: None, 2: 5.0, 3: None, 4: None}, 1, 1, [2, 4], id="recovery is no best"),
        pytest.param({1: None, 2: None, 3: None}, 1, 1, [3], id="only recovery"),
    ],
)
def test_newest_and_best_are_kept(tmp_path, losses, latest, best, kept):
    checkpoints = opened(tmp_path, latest, best)
    save(checkpoints, losses)
    assert checkpoints.steps() == kept
    assert checkpoints.latest() == max(losses)


def test_what_is_best_outlives_a_restart(tmp_path):
    first = opened(tmp_path)
    save(first, {1: 1.0, 2: 2.0})
    first.close()
    second = opened(tmp_path)
    save(second, {3: 3.0, 4: 4.0, 5: 5.0})
    assert second.steps() == [1, 4, 5]


def test_restore_is_bit_equal(tmp_path):
    checkpoints = opened(tmp_path)
    save(checkpoints, {7: 1.0})
    checkpoints.close()
    state, position = opened(tmp_path).restore(7, make_state(0))
    equal(state, make_state(7))
    assert position == {"batches": 7}


def test_the_state_may_change_as_soon_as_save_returns(tmp_path):
    """The next step donates its buffers."""
    checkpoints, state = opened(tmp_path), make_state(1, size=1 << 18)
    checkpoints.save(1, state, {"batches": 1}, None)
    jax.tree.map(lambda x: x.delete(), state)
    checkpoints.wait()
    equal(checkpoints.restore(1, make_state(0, size=1 << 18))[0], make_state(1, size=1 << 18))


def damage(directory):
    for path in [p for p in directory.rglob("d/*") if p.is_file()]:
        path.write_bytes(path.read_bytes()[:10])


@pytest.mark.parametrize("harm", [damage, lambda d: shutil.rmtree(d / "state")])
def test_damaged_checkpoint_is_named_with_the_others(tmp_path, harm):
    checkpoints = opened(tmp_path)
    save(checkpoints, {1: 1.0, 2: 2.0})
    checkpoints.close()
    harm(tmp_path / "checkpoints" / "2")
    checkpoints = opened(tmp_path)
    with pytest.raises(UserError, match=r"checkpoints/2: cannot be restored .*\[1, 2\]"):
        checkpoints.restore(2, make_state(0))
    equal(checkpoints.restore(1, make_state(0))[0], make_state(1))


def test_state_of_another_shape_is_refused(tmp_path):
    checkpoints = opened(tmp_path)
    save(checkpoints, {1: 1.0})
    with pytest.raises(UserError, match=r"checkpoints/1: .* other names or shapes \(.*65.*64"):
        checkpoints.restore(1, make_state(0, size=65))
    other = make_state(0)
    other = other.replace(trainable={"k": other.trainable["q"]})
    with pytest.raises(UserError, match=r"checkpoints/1: .* other names or shapes"):
        checkpoints.restore(1, other)


def test_half_written_directory_is_ignored(tmp_path):
    checkpoints = opened(tmp_path)
    save(checkpoints, {1: 1.0})
    checkpoints.close()
    folder = tmp_path / "checkpoints"
    shutil.copytree(folder / "1", folder / "2.orbax-checkpoint-tmp")
    checkpoints = opened(tmp_path)
    assert (checkpoints.latest(), checkpoints.steps()) == (1, [1])
    save(checkpoints, {2: 2.0})
    assert checkpoints.steps() == [1, 2]


@pytest.fixture
def small_disk(tmp_path):
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(tmp_path)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("may not mount a file system")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_full_disk(small_disk):
    checkpoints = opened(small_disk, latest=9)
    with pytest.raises(UserError, match=r"checkpoints: the disk is full.*keep_latest"):
        for step in range(1, 9):
            checkpoints.save(step, make_state(step, size=1 << 16), {"batches": step}, None)
            checkpoints.wait()
    left = opened(small_disk)
    assert left.latest() == step - 1 >= 1
    equal(left.restore(step - 1, make_state(0, size=1 << 16))[0], make_state(step - 1, 1 << 16))


def test_full_disk_as_python_tells_it(tmp_path, monkeypatch):
    checkpoints = opened(tmp_path)
    save(checkpoints, {1: 1.0})

    def refuse(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints._manager, "save", refuse)
        with pytest.raises(UserError, match="the disk is full"):
            save(checkpoints, {2: 2.0})
    equal(opened(tmp_path).restore(1, make_state(0))[0], make_state(1))


def test_save_returns_before_the_checkpoint_is_complete(tmp_path, monkeypatch):
    """What makes a directory a checkpoint, its renaming, is held up until ``save`` has returned."""
    may_go_on, held, rename = threading.Event(), [], os.rename

    def slow(source, target, **options):
        if os.path.basename(target) == "1":
            held.append(threading.current_thread() is not threading.main_thread())
            assert may_go_on.wait(60)
        return rename(source, target, **options)

    monkeypatch.setattr(os, "rename", slow)
    checkpoints = opened(tmp_path)
    state = make_state(1)
    checkpoints.save(1, state, {"batches": 1}, 1.0)  # would wait for ever if it waited
    assert not (tmp_path / "checkpoints" / "1").exists()
    may_go_on.set()
    checkpoints.wait()
    assert held == [True]
    equal(checkpoints.restore(1, make_state(9))[0], state)
    checkpoints.close()
