#!/usr/bin/env bash
# Everything behind a table of docs/moe.md: train a small model of experts, prune, combine, extend and adapt it.
#
#     bash tools/moe/experiment.sh synthetic work_dirs/moe/synthetic docs/logs/moe/synthetic
#     bash tools/moe/experiment.sh real work_dirs/moe/real docs/logs/moe/real
#
# A run that has ended is not run again; remove its folder for that. Reports are copied to the last argument.
set -euo pipefail
[ $# -eq 3 ] || { sed -n '4,5p' "$0" >&2; exit 2; }
WORK=$2 LOGS=$3

# name, config: train, and measure
train() { [ -f "$WORK/$1/report.json" ] || { python tools/train.py "$2" --work-dir "$WORK/$1" && measure "$1" "$2" "$WORK/$1"; }; }
# name, config, folder of the checkpoint, options
measure() { python tools/moe/measure.py "$2" "$(cat "$3/last_checkpoint")" --evaluate --size "$SIZE" --out "$WORK/$1/report.json" "${@:4}"; }
# tool, name, options: change the model named "all"
change() {
    local tool=$1 name=$2; shift 2
    [ -f "$WORK/$name/report.json" ] || python "tools/moe/$tool.py" "$CONFIG" "$(cat "$WORK/all/last_checkpoint")" --size "$SIZE" --out "$WORK/$name" "$@"
}
# tool, task, config, options: prepare the training on another task, train, measure
add() {
    local tool=$1 task=$2 other=$3; shift 3
    change "$tool" "${tool}ed" --task "$task" --from "$other" --experts 2 "$@"
    [ -f "$WORK/${tool}ed_trained/report.json" ] && return
    python tools/train.py "$WORK/${tool}ed/config.py"
    measure "${tool}ed_trained" "$WORK/${tool}ed/config.py" "$WORK/${tool}ed/training/$tool" --name "${tool}ed_trained"
}

case $1 in
synthetic)
    CONFIG=configs/het_moe_synthetic.py SIZE=320x192
    train all "$CONFIG"
    train dense_twin configs/het_davit_synthetic.py
    for task in cls det sem_seg; do change prune "pruned_$task" --tasks "$task" --threshold 0.02 --keep-top-k --evaluate; done
    change combine det_by_sem_seg --routes det=sem_seg --evaluate
    change combine mixed_det_sem_seg --routes 'det=0.5*det+0.5*sem_seg' 'sem_seg=0.5*det+0.5*sem_seg' --evaluate
    add extend drivable configs/het_moe_synthetic_drivable.py
    add adapt drivable configs/het_moe_synthetic_drivable.py --start-from sem_seg --train least ;;
real)
    CONFIG=configs/het_moe_cifar_bccd.py SIZE=320x240
    train all "$CONFIG"
    for task in cls det; do change prune "pruned_$task" --tasks "$task" --threshold 0.02 --keep-top-k --evaluate; done
    change combine mixed_cls_det --routes 'cls=0.5*cls+0.5*det' 'det=0.5*cls+0.5*det' --evaluate
    add extend sem_seg configs/het_moe_camvid.py
    add adapt sem_seg configs/het_moe_camvid.py --start-from det --train least
    train camvid_alone configs/het_moe_camvid.py
    train together configs/het_moe_cifar_bccd_camvid.py ;;
*) echo "unknown experiment '$1': synthetic or real" >&2; exit 2 ;;
esac

mkdir -p "$LOGS"
python tools/moe/same_outputs.py "$CONFIG" "$(cat "$WORK/all/last_checkpoint")" \
    "$WORK/extended/config.py" "$(cat "$WORK/extended/training/extend/last_checkpoint")" | tee "$LOGS/same_outputs.txt"
for report in "$WORK"/*/report.json; do cp "$report" "$LOGS/$(basename "$(dirname "$report")").json"; done
