#!/usr/bin/env bash
# Evaluate with several processes, one a GPU: tools/dist_test.sh CONFIG CHECKPOINT PROCESSES [arguments of tools/test.py]
# Where no accelerator is visible the processes share the CPU and speak gloo.
# Several machines: start it on each with NNODES, NODE_RANK, MASTER_ADDR and PORT set.
set -euo pipefail

if [ $# -lt 3 ]; then
    echo "usage: [NNODES=1 NODE_RANK=0 MASTER_ADDR=127.0.0.1 PORT=29500] $0 CONFIG CHECKPOINT PROCESSES" \
        "[arguments of test.py]" >&2
    exit 2
fi
python=${PYTHON:-$(command -v python || echo python3)}
"$python" "$(dirname "$0")/_interpreter.py" "$0" "$@" || exit 2
config=$1
checkpoint=$2
processes=$3
shift 3

exec "$python" "$(dirname "$0")/launch.py" \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$processes" \
    "$(dirname "$0")/test.py" "$config" "$checkpoint" --launcher pytorch "$@"
