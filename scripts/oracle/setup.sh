#!/usr/bin/env bash
# Makes .venv-oracle: the PyTorch stack that writes the references under tests/golden/.
# It is separate because PyTorch never enters the training environment.
#
#   scripts/oracle/setup.sh
#   .venv-oracle/bin/python scripts/oracle/parity_goldens.py
#
# scripts/oracle/setup.sh keras makes .venv-keras instead, beside .venv, and scripts/oracle/setup.sh
# llama .venv-llama, which compiles llama.cpp (a quarter of an hour); both for export_parity.py.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

if [[ ${1-} == keras ]]; then
  [ -x .venv-keras/bin/python ] || .venv/bin/python -m venv .venv-keras
  .venv-keras/bin/python -m pip install --quiet --disable-pip-version-check keras-hub==0.32.0 \
    jax==0.11.0 safetensors==0.8.0 sentencepiece==0.2.1
  exit
fi

if [[ ${1-} == llama ]]; then
  [ -x .venv-llama/bin/python ] || .venv/bin/python -m venv .venv-llama
  # Named instructions instead of this machine's: with GGML_NATIVE=ON it crashed on one with AMX.
  CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DLLAVA_BUILD=OFF" \
    .venv-llama/bin/python -m pip install --quiet --disable-pip-version-check \
    'llama-cpp-python[server]==0.3.36' numpy==2.5.5
  exit
fi

find_python() {
  local candidate
  for candidate in python3.11 python3 "$HOME"/.pyenv/versions/3.11.*/bin/python; do
    if "$candidate" -c 'import ensurepip, sys; sys.exit(sys.version_info[:2] != (3, 11))' \
      2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "setup.sh: no Python 3.11 found (tried python3.11, python3, pyenv); install one" >&2
  return 2
}

python=$(find_python)
[ -x .venv-oracle/bin/python ] || "$python" -m venv .venv-oracle
pip=(.venv-oracle/bin/python -m pip install --quiet --disable-pip-version-check)
# First and alone, with pip: it honours pip.conf, where a CPU wheel can be preferred. The later
# packages would otherwise pull the CUDA build.
"${pip[@]}" torch==2.13.0
"${pip[@]}" transformers==5.23.0 peft==0.21.2 safetensors==0.8.0 gguf==0.19.0 numpy==2.4.6 \
  sentencepiece==0.2.1 protobuf==6.33.6
"${pip[@]}" lm-eval==0.4.13 # for lm_eval_parity.py alone; its many requirements take pip long
.venv-oracle/bin/python -c \
  'import peft, torch, transformers; print(torch.__version__, transformers.__version__, peft.__version__)'
