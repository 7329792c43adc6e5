# Sourced by dist_train.sh and dist_test.sh as: _dist.sh TOOL "POSITIONAL ARGUMENTS" "$@"
# Without a GPU, distributed runs use the gloo backend.
# Several machines: start the script on each with NNODES, NODE_RANK, MASTER_ADDR and PORT set.
set -euo pipefail

tool=$1
read -ra names <<<"$2"
shift 2
count=${#names[@]}
if [ $# -le "$count" ]; then
    echo "usage: [NNODES=1 NODE_RANK=0 MASTER_ADDR=127.0.0.1 PORT=29500] $0 ${names[*]} PROCESSES" \
        "[arguments of $tool.py]" >&2
    exit 2
fi
folder=$(dirname "$0")
python=${PYTHON:-$(command -v python || echo python3)}
"$python" "$folder/_interpreter.py" "$0" "$@" || exit 2
positional=("${@:1:count}")
processes=${*:count+1:1}
shift $((count + 1))

exec "$python" "$folder/launch.py" \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$processes" \
    "$folder/$tool.py" "${positional[@]}" --launcher pytorch "$@"
