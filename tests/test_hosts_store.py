"""What hosts say to each other through the coordinator's store, with threads as hosts."""

import concurrent.futures
import importlib.util
import threading

import jax
import pytest
from jax._src import cloud_tpu_init

from sft import config
from sft.run import coordinator
from sft.run import hosts as hosts_lib


class Store:
    """The coordinator's key-value store, as one client sees it."""

    def __init__(self):
        self._values, self._changed = {}, threading.Condition()

    def key_value_set(self, key, value):
        with self._changed:
            assert key not in self._values, f"ALREADY_EXISTS: {key}"
            self._values[key] = value
            self._changed.notify_all()

    def blocking_key_value_get(self, key, milliseconds):
        with self._changed:
            if not self._changed.wait_for(lambda: key in self._values, milliseconds / 1000):
                raise RuntimeError("DEADLINE_EXCEEDED")
            return self._values[key]


def on_each(count, act):
    """``act(hosts module, index)`` on every host: its result, or its exception."""

    def one(index, store):
        spec = importlib.util.spec_from_file_location(f"hosts_{index}", hosts_lib.__file__)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module._hosts = coordinator.Hosts(store, index, count)
        try:
            return act(module, index)
        except Exception as error:
            return error

    store = Store()
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda index: one(index, store), range(count)))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_what_is_the_same_passes_and_may_be_compared_again(count):
    def act(hosts, index):
        del index
        for what in ("versions", "data"):
            hosts.compare(what, {"jax": "0.11", "rows": [1, {"a": None}]})
        return "passed"

    assert on_each(count, act) == ["passed"] * count


def test_what_differs_is_named_on_every_host():
    ours = [{"same": 1, "jax": "0.11"}, {"same": 1, "jax": "0.12"}, {"same": 1, "jax": "0.11"}]
    ours[2]["more"] = True
    errors = on_each(3, lambda hosts, index: hosts.compare("versions", ours[index]))
    assert {type(error).__name__ for error in errors} == {"UserError"}
    assert {str(error) for error in errors} == {
        'the hosts differ in jax: "0.11" on host 0 2, "0.12" on host 1; '
        "more: null on host 0 1, true on host 2. Give all the same versions."
    }


def test_the_first_goes_first():
    order = []

    def act(hosts, index):
        with hosts.in_turn("data"):
            order.append(index)
        hosts.barrier("end")
        return len(order)

    for _ in range(20):
        order.clear()
        assert on_each(4, act) == [4] * 4
        assert order[0] == 0 and sorted(order) == [0, 1, 2, 3]


def test_a_directory_that_all_see(tmp_path):
    assert on_each(3, lambda hosts, index: hosts.check_shared(tmp_path)) == [None] * 3
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_one_does_not_see(tmp_path):
    for name in ("0", "1"):
        (tmp_path / name).mkdir()

    def act(hosts, index):
        hosts._VISIBLE = 0.5
        if index:
            hosts.check_shared(tmp_path / "1")
        else:  # the rest of what the first does would wait for the other's failure
            token = hosts._gather("shared", "token")[0]
            with hosts.in_turn("shared"):
                (tmp_path / "0" / f".shared-{token}").touch()

    first, second = on_each(2, act)
    assert first is None
    assert "1: host 1 does not see what host 0 writes there. Give a --workdir on" in str(second)


def test_alone_nothing_is_done(tmp_path):
    hosts_lib.compare("versions", {"jax": 1})
    hosts_lib.barrier("end")
    hosts_lib.check_shared(tmp_path)
    with hosts_lib.in_turn("data"):
        assert hosts_lib.is_first()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("platform", "asks"), [("", 1), ("tpu", 1), ("cpu", 0)])
def test_on_a_tpu_vm_the_others_are_asked_for_also_where_there_are_none(
    monkeypatch, platform, asks
):
    asked = []

    def initialize(**arguments):
        asked.append(arguments)
        raise ValueError("coordinator_address should be defined.")

    for name in coordinator.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cloud_tpu_init, "running_in_cloud_tpu_vm", True)
    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    settings = config.default()
    settings.mesh.platform = platform
    names = ("jax_platforms", "jax_cpu_collectives_implementation")
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_platforms", "tpu,cpu")
    try:
        assert coordinator.join(settings) == coordinator.ALONE
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
    assert len(asked) == asks
