# Sourced by bash or zsh: `source scripts/env.sh dev demo` has scripts/install.sh install the locked
# packages with these extras, and activates them. It sets no shell options of the caller. Other
# shells, and those who want theirs left as it is, use scripts/sft.
# shellcheck shell=bash

if [ -n "${ZSH_VERSION-}" ]; then
  eval 'ROOT="${${(%):-%x}:A:h:h}"' # zsh's own way to name this file; other shells cannot read it
elif [ -n "${BASH_VERSION-}" ]; then
  ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
else
  echo "env.sh: only bash and zsh can source it. Use scripts/sft, as in: scripts/sft --help" >&2
  return 1
fi

# Without HOME (a bare container, env -i) the shell still knows ~.
if [ -z "${HOME-}" ]; then
  HOME=~
  export HOME
fi
"$ROOT/scripts/install.sh" "$@" || return 1
export UV_PROJECT_ENVIRONMENT="$ROOT/${SFT_ENVIRONMENT:-.venv}"
export VIRTUAL_ENV="$UV_PROJECT_ENVIRONMENT" PATH="$UV_PROJECT_ENVIRONMENT/bin:$PATH"
unset PYTHONHOME
# On CPUs, XLA frees and allocates gigabytes in every step; kept in the process and in 2 MiB pages,
# that memory costs no page faults (measured on the quickstart's step: half a million fewer).
malloc=glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.arena_max=1
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-$malloc:glibc.malloc.trim_threshold=34359738368}"
unset malloc
