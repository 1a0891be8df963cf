#!/usr/bin/env bash
# Format, lint, types, tests. `scripts/test.sh --slow` adds the slow tests; other arguments go to
# pytest, as in `scripts/test.sh tests/test_loss.py -k chunk`. The whole suite runs on several cores.
# The tests on Apache Beam, which holds other packages back, run last and in .venv-beam: with the
# whole suite, or when one is named.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

marks="not slow and not beam" beam_marks="beam and not slow" extras=(dev demo)
if [[ ${1-} == --slow ]]; then
  marks="not beam" beam_marks="beam"
  extras+=(plan) # the TPU compiler, 204 MiB; without it, the tests that need it are skipped
  shift
fi

if [[ $marks == not\ slow* ]]; then
  # The quick tests compile much and compute little.
  export XLA_FLAGS="${XLA_FLAGS-} --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
fi

mapfile -t beam_files < <(grep -l "mark\.beam" tests/test_*.py)
is_whole=1 beam=0 more=("${beam_files[@]}")
for argument in "$@"; do
  if [[ $argument == -k* ]]; then is_whole=0; fi
  if [[ -e ${argument%%::*} ]]; then is_whole=0 more=(); fi
  for file in "${beam_files[@]}"; do
    if [[ $argument == *"$file"* ]]; then beam=1; fi
  done
done
parallel=()
if [[ $is_whole == 1 ]]; then
  beam=1
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
if [[ $beam == 0 || ($status != 0 && $status != 5) ]]; then exit "$status"; fi

# shellcheck source=scripts/env.sh
SFT_ENVIRONMENT=.venv-beam source scripts/env.sh beam test
# So quiet, pytest prints no last line of its own: that of the whole suite stays the last.
on_beam=0
phase pytest -qq -m "$beam_marks" "$@" "${more[@]+"${more[@]}"}" || on_beam=$?
if [[ $on_beam == 5 ]]; then exit "$status"; fi
exit "$on_beam"
