#!/usr/bin/env bash
# Train with several processes, one a GPU: tools/dist_train.sh CONFIG PROCESSES [arguments of tools/train.py]
# Where no accelerator is visible the processes share the CPU and speak gloo.
# Several machines: start it on each with NNODES, NODE_RANK, MASTER_ADDR and PORT set.
set -euo pipefail

if [ $# -lt 2 ]; then
    echo "usage: [NNODES=1 NODE_RANK=0 MASTER_ADDR=127.0.0.1 PORT=29500] $0 CONFIG PROCESSES [arguments of train.py]" >&2
    exit 2
fi
python=${PYTHON:-$(command -v python || echo python3)}
"$python" "$(dirname "$0")/_interpreter.py" "$0" "$@" || exit 2
config=$1
processes=$2
shift 2

exec "$python" "$(dirname "$0")/launch.py" \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$processes" \
    "$(dirname "$0")/train.py" "$config" --launcher pytorch "$@"
