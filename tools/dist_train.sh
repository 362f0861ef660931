#!/usr/bin/env bash
# tools/dist_train.sh CONFIG GPUS [arguments of train.py]
# On several nodes run it on each, with NNODES, NODE_RANK, MASTER_ADDR and PORT set. With MAX_RESTARTS=3 --resume, all
# processes start again from the latest checkpoint when one has died, three times at most.
set -e
[ $# -ge 2 ] || { sed -n 2,4p "$0"; exit 2; }

CONFIG=$1
GPUS=$2

PYTHONPATH="$(dirname "$0")/..":$PYTHONPATH \
python -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$GPUS" \
    --max_restarts="${MAX_RESTARTS:-0}" \
    "$(dirname "$0")/train.py" "$CONFIG" --launcher pytorch "${@:3}"
