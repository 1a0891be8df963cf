#!/usr/bin/env bash
# Makes the environments of the libraries that train_step.py compares with, beside .venv:
# .venv-peers-torch (Python 3.11: transformers, PEFT, TRL) and .venv-peers-tunix (Python 3.12).
# About 3 GB of disk. Does nothing for an environment whose requirements have not changed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
here=scripts/bench/peers

# Prints a Python of version $1 that runs and can make environments. Version managers leave
# launchers on PATH that fail, so each candidate is tried.
find_python() {
  local candidate
  for candidate in "python$1" python3 "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python \
    "${UV_PYTHON_INSTALL_DIR:-$HOME/.local/share/uv/python}/cpython-$1".*/bin/python3; do
    if "$candidate" -c "import ensurepip, ssl, sys; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" \
      2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "setup.sh: no Python $1 found (on PATH, of pyenv or of uv); install one" >&2
  return 2
}

# environment NAME PYTHON_VERSION: a fresh one, unless the stamp says that it is as it should be.
environment() {
  local venv=.venv-peers-$1 requirements=$here/requirements-$1.txt python
  if cmp -s "$requirements" "$venv/installed.txt"; then
    echo "$venv: up to date"
    return
  fi
  python=$(find_python "$2")
  "$python" -m venv --clear "$venv"
  local pip=("$venv/bin/python" -m pip install --disable-pip-version-check --quiet)
  if [[ $1 == torch ]]; then
    # First and alone, with pip: it honours pip.conf, where a CPU wheel can be preferred.
    "${pip[@]}" torch==2.13.0
  fi
  "${pip[@]}" -r "$requirements"
  cp "$requirements" "$venv/installed.txt"
  echo "$venv: ready"
}

environment torch 3.11
environment tunix 3.12
