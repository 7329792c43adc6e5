#!/usr/bin/env bash
# Train on a Slurm cluster: tools/slurm_train.sh PARTITION JOB_NAME CONFIG [arguments of tools/train.py]
# GPUS is the number of processes, GPUS_PER_NODE how many run on each machine; GPUS_PER_NODE=0 trains on CPUs.
set -euo pipefail

if [ $# -lt 3 ]; then
    echo "usage: [GPUS=8 GPUS_PER_NODE=8 CPUS_PER_TASK=5 SRUN_ARGS='' MASTER_PORT=29500]" \
        "$0 PARTITION JOB_NAME CONFIG [arguments of train.py]" >&2
    exit 2
fi
python=${PYTHON:-$(command -v python || echo python3)}
"$python" "$(dirname "$0")/_interpreter.py" "$0" "$@" || exit 2
partition=$1
job_name=$2
config=$3
shift 3

gpus=${GPUS:-8}
per_node=${GPUS_PER_NODE:-8}
((per_node <= gpus)) || per_node=$gpus
resources=()
if ((per_node > 0)); then
    resources=(--gres="gpu:$per_node" --ntasks-per-node="$per_node")
fi

# shellcheck disable=SC2086  # SRUN_ARGS holds several arguments.
exec srun --partition="$partition" --job-name="$job_name" --ntasks="$gpus" "${resources[@]}" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    "$python" -u "$(dirname "$0")/train.py" "$config" --launcher slurm "$@"
