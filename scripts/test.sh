#!/usr/bin/env bash
# Format, lint, types, tests. `scripts/test.sh --slow` adds the slow tests; other arguments go to
# pytest, as in `scripts/test.sh tests/test_loss.py -k chunk`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

marks=(-m "not slow")
extras=(dev demo)
if [[ ${1-} == --slow ]]; then
  marks=()
  extras+=(plan) # the TPU compiler, 204 MiB; without it, the tests that need it are skipped
  shift
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
phase pytest "${marks[@]+"${marks[@]}"}" "$@"
