#!/usr/bin/env bash
# Everything behind the comparison of docs/pretraining.md: pre-train with every branch alone and with all of them, then
# transfer each to the three tasks on CamVid and on rendered scenes, over three seeds. Stopped at any time, the same
# command goes on.
#
#     bash tools/pretraining_comparison.sh work_dirs/hvp_comparison docs/logs/hvp_comparison
#
# SEEDS="0 1 2" and JOBS=2 (runs at a time) can be set in the environment, PYTHON names the interpreter.
set -euo pipefail
[ $# -eq 2 ] || { sed -n '6p' "$0" >&2; exit 2; }
WORK=$1 LOGS=$2
CONFIGS=configs/hvp_comparison
compare() { "${PYTHON:-python}" tools/analysis_tools/compare_runs.py "$@"; }
train() { compare run "$CONFIGS/$1" --work-dir "$WORK/$1" --seeds ${SEEDS:-0 1 2} --jobs "${JOBS:-2}" "${@:2}"; }

train pretrain
for part in camvid synthetic; do
    train $part --only random
    train $part --only mlc mim con all --options "checkpoint=$WORK/pretrain/{config}/seed{seed}"
done
for part in pretrain camvid synthetic; do
    compare collect "$CONFIGS/$part" "$LOGS/$part" --work-dir "$WORK/$part"
done
for part in camvid synthetic; do
    "${PYTHON:-python}" tools/analysis_tools/results_table.py "$LOGS/$part"/*/*.json
done
