#!/usr/bin/env bash
# Train under Slurm, one torchrun a node:  GPUS=16 tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [flags of train.py]
set -euo pipefail
[ $# -ge 4 ] || { echo "usage: $0 PARTITION JOB_NAME CONFIG WORK_DIR [flags of tools/train.py]" >&2; exit 2; }
partition=$1 job_name=$2 config=$3 work_dir=$4
gpus=${GPUS:-8}
per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
if ((gpus % per_node)); then
    echo "error: GPUS=$gpus is not a multiple of GPUS_PER_NODE=$per_node" >&2
    exit 2
fi
nodes=$((gpus / per_node))
here=$(cd "$(dirname "$0")" && pwd)
export PYTHONPATH="$here/..:${PYTHONPATH:-}" PORT=${PORT:-}
# The first node of the allocation is the meeting point, on a port that two jobs on one node do not share; SLURM_* are
# known only inside srun.
# shellcheck disable=SC2016
exec srun --partition="$partition" --job-name="$job_name" --nodes="$nodes" --ntasks-per-node=1 \
    --gres="gpu:$per_node" --cpus-per-task="$((${CPUS_PER_TASK:-5} * per_node))" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    bash -c 'exec "${PYTHON:-python}" -m torch.distributed.run --nnodes="$SLURM_NNODES" --node_rank="$SLURM_NODEID" \
        --nproc_per_node="$0" --master_port="${PORT:-$((20000 + ${SLURM_JOB_ID:-0} % 10000))}" \
        --master_addr="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)" "$@"' \
    "$per_node" "$here/train.py" "$config" --work-dir "$work_dir" --launcher pytorch "${@:5}"
