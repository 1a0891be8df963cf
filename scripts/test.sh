#!/usr/bin/env bash
# Format, lint, types, tests. `scripts/test.sh --slow` adds the slow tests; other arguments go to
# pytest, as in `scripts/test.sh tests/test_loss.py -k chunk`. The whole suite runs on several cores.
# The tests on Apache Beam and on SkyPilot, which hold other packages back, run last, in .venv-beam
# and .venv-cloud: with the whole suite (those on SkyPilot with --slow), or when one is named.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

marks="not slow and not beam and not cloud" and_quick=" and not slow" extras=(dev demo)
if [[ ${1-} == --slow ]]; then
  marks="not beam and not cloud" and_quick=""
  extras+=(plan) # the TPU compiler, 204 MiB; without it, the tests that need it are skipped
  shift
fi

if [[ $marks == not\ slow* ]]; then
  # The quick tests compile much and compute little.
  export XLA_FLAGS="${XLA_FLAGS-} --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
fi

# apart[beam]: the files whose tests are marked so, if they are to run.
declare -A apart=()
is_whole=1
for argument in "$@"; do
  if [[ $argument == -k* || -e ${argument%%::*} ]]; then is_whole=0; fi
done
for mark in beam cloud; do
  mapfile -t files < <(grep -l "mark\.$mark" tests/test_*.py)
  for argument in "$@"; do
    for file in "${files[@]}"; do
      if [[ $argument == *"$file"* ]]; then apart[$mark]=" "; fi
    done
  done
  # SkyPilot and xpk take minutes to install: with the slow tests.
  if [[ $is_whole == 1 && ($mark != cloud || -z $and_quick) ]]; then apart[$mark]="${files[*]}"; fi
done
parallel=()
if [[ $is_whole == 1 ]]; then
  # Compilers and Python use one core each. A file's tests share what its fixtures have made.
  parallel=(--numprocesses auto --maxprocesses 4 --dist loadfile --durations=15)
fi

# shellcheck source=scripts/env.sh
source scripts/env.sh "${extras[@]}"

phase() {
  printf '== %s\n' "$*"
  "$@"
}
phase ruff format --check --quiet .
phase ruff check --quiet .
phase ty check
status=0
phase pytest -m "$marks" "${parallel[@]+"${parallel[@]}"}" "$@" || status=$?
# 5: none of the named tests is for this environment.
if [[ $status != 0 && $status != 5 ]]; then exit "$status"; fi

# So quiet, pytest prints no last line of its own: that of the whole suite stays the last.
run_apart() {
  local mark=$1 more status_apart=0
  shift
  read -ra more <<<"${apart[$mark]}"
  phase pytest -qq -m "$mark$and_quick" "$@" "${more[@]+"${more[@]}"}" || status_apart=$?
  if [[ $status_apart == 0 || $status == 5 ]]; then status=$status_apart; fi
  if [[ $status_apart != 0 && $status_apart != 5 ]]; then exit "$status_apart"; fi
}
if [[ -n ${apart[beam]-} ]]; then
  # shellcheck source=scripts/env.sh
  SFT_ENVIRONMENT=.venv-beam source scripts/env.sh beam test
  run_apart beam "$@"
fi
if [[ -n ${apart[cloud]-} ]]; then
  # xpk pins what SkyPilot does not have, so it is a program beside it.
  # shellcheck source=scripts/env.sh
  SFT_ENVIRONMENT=.venv-xpk source scripts/env.sh xpk
  # shellcheck source=scripts/env.sh
  SFT_ENVIRONMENT=.venv-cloud source scripts/env.sh submit test
  run_apart cloud "$@"
fi
exit "$status"
