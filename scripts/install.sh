#!/usr/bin/env bash
# Makes .venv hold the locked packages with the named extras: `scripts/install.sh dev demo`. Takes
# no time when that is already so. Extras that exclude each other go into folders of their own:
# `SFT_ENVIRONMENT=.venv-beam scripts/install.sh beam`.
# Needs bash and one of: uv, a Python 3, curl, wget. `scripts/env.sh` and `scripts/sft` call it.
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
export UV_PROJECT_ENVIRONMENT="$ROOT/${SFT_ENVIRONMENT:-.venv}"

say() { printf '%s\n' "$*" >&2; }

# True for a Python 3.12 or newer that really runs: version-manager shims exist but may fail, and
# a Python built without its system libraries cannot install packages.
good_python() {
  "$1" -c 'import ctypes, ssl, sys, zlib; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1
}

# Prints the first good Python; 3.12 and 3.13 go first because every locked package has wheels
# for them.
find_python() {
  local version path
  for version in 3.12 3.13 3.14; do
    for path in "$(type -P "python$version")" \
      "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version"*/bin/python \
      "${UV_PYTHON_INSTALL_DIR:-$HOME/.local/share/uv/python}/cpython-$version"*/bin/python3; do
      if [[ -x $path ]] && good_python "$path"; then
        echo "$path"
        return
      fi
    done
  done
  path="$(type -P python3)"
  if [[ -n $path ]] && good_python "$path"; then echo "$path"; fi
}

# True for a uv that really runs and is new enough to read uv.lock and its conflicting extras.
good_uv() {
  local version
  version="$("$1" --version 2>/dev/null)" || return 1
  [[ $version == uv\ * ]] || return 1
  version="${version#uv }"
  printf '%s\n' 0.6.0 "${version%% *}" | sort -C -V
}

find_uv() {
  local path
  for path in "$(type -P uv)" "$HOME/.local/bin/uv" "$HOME/.cargo/bin/uv" "$ROOT/.venv-uv/bin/uv"; do
    if [[ -x $path ]] && good_uv "$path"; then
      echo "$path"
      return
    fi
  done
}

# Puts uv into .venv-uv with Python $1, or any other Python 3 that works, else with the official
# installer. A system Python may lack venv or pip, so both ways are tried.
install_uv() {
  local python private="$ROOT/.venv-uv"
  for python in "$1" "$(type -P python3)" /usr/bin/python3; do
    [[ -x $python ]] || continue
    rm -rf "$private"
    if "$python" -m venv "$private" && "$private/bin/python" -m pip install --quiet uv; then return; fi
    rm -rf "$private"
    if "$python" -m pip install --quiet --target "$private" uv; then return; fi
  done >/dev/null 2>&1
  local url=https://astral.sh/uv/install.sh get=""
  if type -P curl >/dev/null; then get="curl -LsSf"; elif type -P wget >/dev/null; then get="wget -qO-"; fi
  [[ -n $get ]] || return 1
  rm -rf "$private"
  $get "$url" | env UV_INSTALL_DIR="$private/bin" UV_NO_MODIFY_PATH=1 sh >/dev/null 2>&1
}

# Runs `uv sync` with the given arguments from the cache alone; downloads only if that fails, and
# shows what uv says only if that fails too.
sync_packages() {
  local log
  if "$UV" sync --offline --quiet "$@" 2>/dev/null; then return; fi
  say "env: downloading packages"
  log="$("$UV" sync --quiet "$@" 2>&1)" || {
    say "$log"
    return 1
  }
}

# The lock, the project file, their place and the bootstrap itself: what the stamp stands for.
fingerprint() {
  { echo "$ROOT" && cat "$ROOT/uv.lock" "$ROOT/pyproject.toml"; } | cksum
}

prepare() {
  local stamp="$UV_PROJECT_ENVIRONMENT/.sft-stamp" key old_key="" old_extras="" extra python
  key="$(fingerprint)"
  if [[ -f $stamp ]]; then { read -r old_key && read -r old_extras; } <"$stamp" || true; fi
  local wanted=() missing=0 arguments=()
  for extra in "$@"; do
    [[ " $old_extras " == *" $extra "* ]] || missing=1
    wanted+=("$extra")
  done
  if [[ $key == "$old_key" && $missing == 0 && -x $UV_PROJECT_ENVIRONMENT/bin/python ]]; then return; fi

  # Extras installed before are kept, so that two scripts do not undo each other's work.
  for extra in $old_extras; do
    [[ " ${wanted[*]-} " == *" $extra "* ]] || wanted+=("$extra")
  done
  for extra in "${wanted[@]+"${wanted[@]}"}"; do arguments+=(--extra "$extra"); done

  python="$(find_python)"
  UV="$(find_uv)"
  if [[ -z $UV ]]; then
    say "env: installing uv into .venv-uv"
    if install_uv "$python"; then UV="$(find_uv)"; fi
  fi
  if [[ -z $UV ]]; then
    say "env: uv not found and could not be installed. Install it (https://docs.astral.sh/uv)," \
      "or a python3 with pip, or curl, and run this again."
    return 1
  fi
  if good_python "$UV_PROJECT_ENVIRONMENT/bin/python"; then
    python="$UV_PROJECT_ENVIRONMENT/bin/python"
  elif [[ -z $python ]]; then
    say "env: no Python 3.12 or newer here; uv will download 3.12"
  fi
  say "env: installing locked packages (extras: ${wanted[*]-none}) with ${python:-uv\'s Python 3.12}"
  rm -f "$stamp"
  sync_packages --project "$ROOT" --frozen --python "${python:-3.12}" \
    "${arguments[@]+"${arguments[@]}"}" || {
    say "env: uv sync failed; its message is above."
    return 1
  }
  printf '%s\n' "$key" "${wanted[*]-}" >"$stamp"
}

if [[ -z ${HOME:-} ]]; then
  HOME=~
  export HOME
fi
# A home that cannot be written to must not stop uv from keeping its cache.
if [[ ! -w $HOME && -z ${UV_CACHE_DIR:-} ]]; then export UV_CACHE_DIR="$ROOT/.cache/uv"; fi

prepare "$@"
