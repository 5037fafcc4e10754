#!/usr/bin/env bash
# Take down what up.sh DIR brought up: its jobs first, then its daemons by the ids they wrote, then DIR.
set -uo pipefail
dir=$1
export SLURM_CONF=$dir/slurm.conf

none_left() { [ -z "$(squeue -h 2>/dev/null)" ]; }
scancel --user=root 2>/dev/null
for _ in $(seq 100); do none_left && break; sleep 0.1; done # what a job leaves behind would hold the ports

ids=$(cat "$dir"/pid/* "$dir/db/pid" 2>/dev/null)
for id in $ids; do kill "$id" 2>/dev/null; done
for _ in $(seq 200); do
  left=
  for id in $ids; do kill -0 "$id" 2>/dev/null && left=$id; done
  [ -z "$left" ] && break
  sleep 0.1
done
rm -rf "$dir"
