"""The run directory: its configuration and environment, and whether a command may use it."""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from ml_collections import ConfigDict

from sft import config as configs
from sft.config.effects import locked
from sft.errors import UserError
from sft.run import bucket, hosts

# What belongs to a configuration for good. Before there is any of it, the configuration may change.
_RESULTS = ("metrics.jsonl", "checkpoints", "eval", "DONE")
# With another of these, what is learnt is of no use.
_MODEL = ("model.name", "model.weights", "model.tokenizer", "data.chat")
_MODEL += ("lora.rank", "lora.alpha", "lora.rslora", "lora.dora", "lora.targets")
_PACKAGES = (
    *("gemma-sft", "jax", "jaxlib", "libtpu", "flax", "optax", "orbax-checkpoint", "grain"),
    *("numpy", "ml-collections", "sentencepiece", "gguf", "gemma"),
)


def path_of(workdir: str | Path) -> Path:
    """The run directory, local or ``gs://bucket/run``. Every command gets it here.

    Of a bucket it is one of epath, which has the methods of ``Path`` that are used on it.

    Raises:
      UserError: another kind of address, or a bucket without a name in it.
    """
    text = os.fspath(workdir)
    if "://" not in text:
        return Path(workdir)
    name, _, inside = text.removeprefix(bucket.SCHEME).partition("/")
    if not bucket.holds(text) or not name or not inside.strip("/"):
        raise UserError(f"{text}: expected a local path, or gs://BUCKET/NAME.")
    from etils import epath
    from fsspec.config import conf

    # TensorStore and other hosts write there too: what gcsfs has listed once is soon out of date.
    conf.setdefault("gcs", {}).setdefault("use_listings_cache", False)
    return cast(Path, epath.Path(text.rstrip("/")))


def prepare(config: ConfigDict, workdir: str, only_scores: bool = False) -> Path:
    """Makes the directory, or checks that it belongs to this configuration; the first host does.

    Args:
      only_scores: for a command that takes what was trained as it is, and may score it otherwise.

    Raises:
      UserError: it was made by another configuration; names what differs. Not all hosts see it.
    """
    path = path_of(workdir)
    with hosts.in_turn("workdir"):
        if hosts.is_first():
            _prepare(config, workdir, path, only_scores)
    hosts.check_shared(path)
    return path


def _prepare(config: ConfigDict, workdir: str, path: Path, only_scores: bool) -> None:
    ours = dict(configs.flatten(config))
    stored = path / "config.json"
    if stored.exists():
        changed = configs.difference(ours, _config(stored))
        kept = locked(changed, ours, only_scores)
        if kept and any((path / name).exists() for name in _RESULTS):
            raise UserError(
                f"{stored}: the run there has another configuration "
                f"({'; '.join(changed[key] for key in kept)}). Undo the change, or choose another "
                f"--workdir.{_onward(path, workdir, ours, kept)}"
            )
        if not kept:
            return
    if not bucket.holds(path):  # which has no directories
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"--workdir={workdir}: {error.strerror}. Choose another place."
            ) from None
    write_json(stored, {"fingerprint": configs.fingerprint(config), "config": ours})


def _onward(path: Path, workdir: str, ours: dict[str, Any], changed: list[str]) -> str:
    """How another run can go on from what this one has learnt, where there is such a way."""
    if not (path / "checkpoints").exists() or any(key in _MODEL for key in changed):
        return ""
    form = "peft" if ours["lora.rank"] else "safetensors"
    which = "" if (path / "selection.json").exists() else " --checkpoint=latest"
    place = " --out=export" if bucket.holds(workdir) else ""
    folder = f"{'export' if place else f'{workdir}/export'}/{form}"
    setting = "lora.start" if ours["lora.rank"] else "model.weights"
    return (
        " To go on from what is learnt there with the new values: sft export "
        f"--workdir={shlex.quote(workdir)} --format={form}{which}{place}, then sft train with "
        f"--config.{setting}={shlex.quote(folder)} in another --workdir."
    )


def stored_config(workdir: str) -> ConfigDict:
    """The configuration that the run was made with.

    Raises:
      UserError: there is none, or it is damaged.
    """
    path = path_of(workdir) / "config.json"
    if not path.exists():
        raise UserError(f"{path}: no run there. Give --config=FILE, or the --workdir of a run.")
    return configs.from_dict(_config(path))


def facts(config: ConfigDict) -> dict[str, Any]:
    """What must be the same on all hosts: otherwise they compile different programs, and hang."""
    source = {f"git {name}": value for name, value in _git().items() if name != "dirty"}
    values = {f"config.{key}": value for key, value in configs.flatten(config)}
    return values | _versions() | {"python": platform.python_version()} | source


def write_environment(workdir: Path, devices: list[str]) -> None:
    """``environment.json``: what produced the numbers."""
    write_json(
        workdir / "environment.json",
        {
            "command": " ".join(["sft", *sys.argv[1:]]),
            "versions": _versions(),
            "python": platform.python_version(),
            "platform": platform.platform(),
            "cpus": os.cpu_count(),
            "processor": _processor(),
            "devices": devices,
            "git": _git(),
        },
    )


def write_json(path: Path, value: Any) -> None:
    """Writes ``value`` as JSON; see ``write_text``."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes the whole file or nothing; see ``write_bytes``."""
    if bucket.holds(path):
        write_bytes(path, text.encode())
    else:
        _replace(path, lambda file: file.write_text(text))


def write_bytes(path: Path, content: bytes) -> None:
    """Writes the whole file or nothing: to a temporary name, then renamed; in a bucket at once.

    Raises:
      UserError: the disk or the bucket refuses.
    """
    if not bucket.holds(path):
        _replace(path, lambda file: file.write_bytes(content))
        return
    try:
        path.write_bytes(content)
    except Exception as error:
        said = bucket.said(error)
        if said is None:
            raise
        raise UserError(f"{path}: cannot be written ({said}).") from None


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    partial = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        os.replace(partial, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}).") from None


def read_json(path: Path) -> Any:
    """What ``write_json`` wrote.

    Raises:
      UserError: unreadable.
    """
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: unreadable ({error}). Remove or restore it, or choose another --workdir."
        ) from None


def _config(path: Path) -> dict[str, Any]:
    stored = read_json(path)
    if not isinstance(stored, dict) or not isinstance(stored.get("config"), dict):
        raise UserError(f"{path}: no 'config' in it. Restore it or choose another --workdir.")
    return stored["config"]


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _processor() -> str:
    """Its name, and the instructions on which rounding and speed in bfloat16 depend."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    fields = {key.strip(): value.strip() for key, _, value in (s.partition(":") for s in lines)}
    able = set(fields.get("flags", fields.get("Features", "")).split())
    seen = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in able]
    return f"{fields.get('model name', platform.processor())} ({', '.join(seen) or 'no AVX2'})"


def _git() -> dict[str, Any]:
    """Revision of the source, and its uncommitted changes; empty outside a checkout."""

    def ask(*words: str) -> str:
        run = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), *words],
            capture_output=True,
            text=True,
            check=False,
        )
        return run.stdout.strip()

    try:
        revision = ask("rev-parse", "HEAD")
        if not revision:
            return {}
        changes = hashlib.sha256(ask("diff", "HEAD").encode()).hexdigest()[:12]
        dirty = bool(ask("status", "--porcelain"))
        return {"revision": revision, "dirty": dirty, "changes": changes}
    except FileNotFoundError:
        return {}
