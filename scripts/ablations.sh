#!/usr/bin/env bash
# Runs the ablations of configs/ablations/, or those that are named, and writes the report of each:
# `scripts/ablations.sh adapter_size packing`. What is finished is not run again. With --check first
# they are run in a place of their own, and their scores held against the published ones.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

runs=runs/ablations check=0
if [[ ${1-} == --check ]]; then
  runs=runs/ablation_checks check=1
  shift
fi
names=("$@")
if ((!$#)); then
  for file in configs/ablations/*.py; do
    name=$(basename "$file" .py)
    if [[ $name != base ]]; then names+=("$name"); fi
  done
fi
for name in "${names[@]}"; do
  if [[ ! -f configs/ablations/$name.py ]]; then
    echo "ablations: no configs/ablations/$name.py" >&2
    exit 2
  fi
done

# shellcheck source=scripts/env.sh
source scripts/env.sh bench
failed=""
python scripts/ablation_data.py
for name in "${names[@]}"; do
  echo "== $name"
  began=$SECONDS where=$runs/$name
  if [[ $name == mining ]]; then
    sft data mine --config=configs/ablations/mining.py --workdir=runs/ablations/mined \
      --config.data.train=data/ablations/train_1000.jsonl
  fi
  status=0
  sft sweep --config="configs/ablations/$name.py" --workdir="$where" --jobs=2 || status=$?
  echo "$name: $((SECONDS - began)) s" | tee -a "$runs/seconds"
  if ((status)); then exit "$status"; fi
  sft report "$where"
  if ((check)); then
    python scripts/ablation_check.py "$name" "$where/sweep.csv" || failed+=" $name"
  fi
done
if [[ $failed ]]; then
  echo "ablations: not as published:$failed" >&2
  exit 2
fi
