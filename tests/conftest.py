"""Eight fake CPU devices for every test. Must run before anything imports jax."""

import os
import signal

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["MPLBACKEND"] = "Agg"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
).strip()

import hypothesis

# Tests that have a home of their own share what is slow to make with others.
HOME = os.path.expanduser("~")
os.environ.setdefault("MPLCONFIGDIR", f"{HOME}/.cache/matplotlib")
os.environ.setdefault("GEMMA_SFT_CACHE", f"{HOME}/.cache/gemma-sft")

# What a shell starts in the background is deaf to Ctrl-C, and so would every test of it be.
signal.signal(signal.SIGINT, signal.default_int_handler)
# A busy machine is not a failing test.
hypothesis.settings.register_profile("no_deadline", deadline=None)
hypothesis.settings.load_profile("no_deadline")
