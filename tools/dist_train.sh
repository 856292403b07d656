#!/usr/bin/env bash
# Train on several GPUs, or CPU processes where there is no GPU:  tools/dist_train.sh CONFIG GPUS [flags of train.py]
# Several machines: run it on each with NNODES, NODE_RANK (0, 1, ...), MASTER_ADDR (the machine of rank 0) and PORT.
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: $0 CONFIG GPUS [flags of tools/train.py]" >&2; exit 2; }
if [ "${NNODES:-1}" != 1 ] && { [ -z "${NODE_RANK:-}" ] || [ -z "${MASTER_ADDR:-}" ]; }; then
    echo "error: NNODES=$NNODES needs NODE_RANK (0 to NNODES-1) and MASTER_ADDR (the machine of rank 0)" >&2
    exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
PYTHONPATH="$here/..:${PYTHONPATH:-}" exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" --nproc_per_node="$2" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    "$here/train.py" "$1" --launcher pytorch "${@:3}"
