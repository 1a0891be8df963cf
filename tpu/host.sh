#!/usr/bin/env bash
# What one host of a TPU slice runs; every host of the slice runs the same line:
#   bash tpu/host.sh install
#   bash tpu/host.sh train --config=configs/mine.py --workdir=gs://bucket/run
# `install` makes .venv hold the packages of uv.lock, never newer ones, and ends; quick when that is
# so already. Any command of sft is installed for, checked by tpu/preflight.py (exit code 2 and a
# named reason: nothing was started), and then becomes this process: signals arrive, and exit codes
# are its own (42 = saved, run me again). A command that uses devices gets
# --config.mesh.platform=tpu unless it is given, so that it never runs on a CPU unnoticed.
# Relative paths are of the checkout, wherever this is started. Needs neither HOME nor PATH of a
# login: a start-up script of a VM has none.
# Environment: SFT_EXTRAS = extras to install (tpu; empty = none); SFT_ANY_REGION=1 = a bucket far
# from the TPU is meant. TPU_SKIP_MDS_QUERY must not be set: hosts find one another by what it stops.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

# True for the commands that run a model, as sft/commands/table.py has it: the others leave the TPU
# to those.
runs_a_model() { python -m sft.commands.table "$@"; }

# Prints the value of the last --config.mesh.platform of a command line, tpu where there is none.
platform_of() {
  local found=tpu
  while (($#)); do
    case $1 in
      --config.mesh.platform | -config.mesh.platform) found=${2-} ;;
      --config.mesh.platform=* | -config.mesh.platform=*) found=${1#*=} ;;
    esac
    shift
  done
  printf '%s' "$found"
}

# In a function, because `source` without arguments of its own passes on those of the script.
install() {
  # shellcheck source=scripts/env.sh
  source scripts/env.sh "$@"
}

if (($# == 0)); then
  sed -n '2,/^set /s/^# \{0,1\}//p' tpu/host.sh >&2
  exit 2
fi
if [[ -n ${TPU_SKIP_MDS_QUERY:-} ]]; then
  echo "host.sh: TPU_SKIP_MDS_QUERY is set: the hosts of a slice would not find one another." \
    "Unset it and run this again." >&2
  exit 2
fi

tunables=${GLIBC_TUNABLES-}
read -ra extras <<<"${SFT_EXTRAS-tpu}" || true
install "${extras[@]+"${extras[@]}"}"
if [[ $1 == install ]]; then exit; fi
# Those of env.sh are for training on CPUs: memory once used is kept. A TPU's host has loaded weights
# through its memory, and is to give it back.
if [[ -n $tunables ]]; then export GLIBC_TUNABLES=$tunables; else unset GLIBC_TUNABLES; fi

words=("$@") platform=cpu
if runs_a_model "$@"; then
  platform="$(platform_of "$@")"
  if [[ $platform == tpu ]]; then words+=(--config.mesh.platform=tpu); fi
fi
# JAX says why a platform that it was told to use fails, and passes over one that it found itself.
# Commands without a model must not take the TPU from a run.
export JAX_PLATFORMS="${JAX_PLATFORMS:-${platform/tpu/tpu,cpu}}"
# What is printed reaches the log of a launcher at once: a preempted VM has no later.
export PYTHONUNBUFFERED=1

python tpu/preflight.py "${words[@]}"
exec python -m sft "${words[@]}"
