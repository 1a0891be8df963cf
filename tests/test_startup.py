"""The compilation cache, and what is said of the time until the first step."""

import json
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from sft.train import startup

NAMES = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


@pytest.fixture(autouse=True)
def no_cache_yet():
    before = {name: getattr(jax.config, name) for name in NAMES}
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.mark.parametrize(
    ("given", "used"),
    [("", None), ("/a/b", "/a/b"), ("~/x", "/home/someone/x"), ("gs://a/b", "gs://a/b")],
)
def test_the_directory(monkeypatch, given, used):
    monkeypatch.setenv("HOME", "/home/someone")
    startup.use_cache(given)
    assert jax.config.jax_compilation_cache_dir == used


def test_the_setting_of_jax_goes_before_ours(tmp_path):
    jax.config.update("jax_compilation_cache_dir", "/theirs")
    startup.use_cache(str(tmp_path))
    assert jax.config.jax_compilation_cache_dir == "/theirs"


def test_a_second_compilation_is_a_hit_and_both_are_told(tmp_path, capsys):
    startup.use_cache(str(tmp_path / "cache"))
    jax.config.update(NAMES[1], 0.0)
    jax.config.update(NAMES[2], -1)
    (tmp_path / "environment.json").write_text('{"devices": []}')

    def compile_it():
        def shape_of_its_own(x):
            return jnp.tanh(x) @ x.T

        jax.jit(shape_of_its_own).lower(jax.ShapeDtypeStruct((3, 41), jnp.float32)).compile()
        startup.report_first_step(str(tmp_path), 7)
        return json.loads((tmp_path / "environment.json").read_text())["first_step"]

    before = dict(startup._seen)
    first, second = compile_it(), compile_it()
    assert first["cache_misses"] - before.get(startup._MISS, 0) == 1
    assert second["cache_misses"] == first["cache_misses"]
    assert second["cache_hits"] - first["cache_hits"] == 1
    assert second["seconds"] > first["seconds"] > 0 and first["step"] == 7
    assert second["compile_seconds"] >= first["compile_seconds"] > 0
    assert f"({_counts(second)})" in capsys.readouterr().out
    assert json.loads((tmp_path / "environment.json").read_text())["devices"] == []


def _counts(found):
    return f"cache: {found['cache_hits']} hits, {found['cache_misses']} misses"


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="as Linux tells it")
def test_a_process_started_when_it_was_started():
    code = (
        "import time; time.sleep(0.3); from sft.train import startup; "
        "print(time.clock_gettime(time.CLOCK_BOOTTIME) - startup.process_seconds())"
    )
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    after = time.clock_gettime(time.CLOCK_BOOTTIME)
    out, _ = process.communicate()
    tick = 0.02  # the kernel counts in hundredths of a second
    assert before - tick <= float(out) <= after + tick
