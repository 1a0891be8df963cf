#!/usr/bin/env bash
# From a bare checkout to a tuned model and a report: installs, makes a small data set, measures
# the base model, tunes it, measures again. Writes runs/quickstart/{report.html,summary.json}.
# Run it again after an interruption: finished phases are skipped and training resumes. Arguments
# go to every sft command, as in `scripts/quickstart.sh --config.train.epochs=1`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

WORKDIR=runs/quickstart
PHASES=$WORKDIR/phases.jsonl
PREEMPTED=42
SFT=(--config configs/quickstart.py --workdir "$WORKDIR" "$@")

finished() { grep -qs "\"phase\": \"$1\".*\"exit\": 0" "$PHASES"; }

# phase NAME COMMAND…: runs it unless an earlier call finished it; times and exit codes go to
# $PHASES.
phase() {
  local name=$1 code=0
  if finished "$name"; then
    echo "== $name: finished earlier"
    return
  fi
  echo "== $name"
  shift
  python scripts/phase.py "$PHASES" "$name" "$@" || code=$?
  if ((code == PREEMPTED)); then
    echo "Interrupted and saved. Run scripts/quickstart.sh again to go on from there." >&2
  fi
  if ((code)); then exit "$code"; fi
}

# A run made with other settings would mix two experiments in one report.
mkdir -p "$WORKDIR"
settings="$(cat configs/quickstart.py scripts/quickstart_data.py | cksum) $*"
if [[ -f $WORKDIR/settings && $(<"$WORKDIR/settings") != "$settings" ]]; then
  echo "$WORKDIR was made with other settings. Move it away or remove it: rm -r $WORKDIR" >&2
  exit 2
fi
echo "$settings" >"$WORKDIR/settings"

echo "== install"
start=$(date +%s)
# shellcheck source=scripts/env.sh
source scripts/env.sh demo
finished install || python scripts/phase.py --since "$start" "$PHASES" install

phase data python scripts/quickstart_data.py --out data/dates
phase baseline sft eval "${SFT[@]}" --checkpoint base
phase train sft train "${SFT[@]}"
phase eval sft eval "${SFT[@]}" --checkpoint best
python scripts/quickstart_summary.py "$WORKDIR"
sft report --workdir "$WORKDIR"
