#!/usr/bin/env bash
# Everything that only a GPU can show, in two calls of less than ten minutes each and without a network.
#
#   tools/gpu_check.sh [--out FOLDER]              loads or builds the extension, runs the GPU tests, and
#                                                  compute-sanitizer's memcheck and racecheck on small shapes
#   tools/gpu_check.sh --benchmark [--out FOLDER]  the GPU benchmark; results go to benchmarks/results unless told otherwise
#   tools/gpu_check.sh --dry-run [--out FOLDER]    the phases of both on the CPU at tiny sizes, into a temporary folder
#
# Needs a Python (PYTHON, by default python3) with torch, timm, matplotlib and pytest. What else is missing there comes
# from the folder of wheels MMEVM_WHEELS (by default build/gpu-wheels); docs/gpu.md says how to fill it. A phase that
# fails or runs out of time is reported, the others run all the same, and the exit status is 1. MMEVM_GPU_CHECK_SECONDS
# (by default 590) is the time for all phases of a call together.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2

SECONDS=0
DEADLINE=${MMEVM_GPU_CHECK_SECONDS:-590}

arguments=("$@")
dry_run=''
checks=1
benchmark=''
out=''
while (($#)); do
  case $1 in
    --dry-run) dry_run=--dry-run benchmark=1 ;;
    --benchmark) checks='' benchmark=1 ;;
    --out) out=$(realpath -m "${2:?--out needs a folder}") && shift ;;
    *) sed -n '2,13s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
  esac
  shift
done

if [[ $dry_run ]]; then
  out=${out:-$(mktemp -d)}
  work=$out
  device=cpu
  [[ ${PYTHON:-} || ! -x .venv/bin/python ]] || PYTHON=.venv/bin/python
else
  out=${out:-benchmarks/results}
  work=build/gpu-check
  device=cuda
fi
# The interpreter itself: a sanitizer should not start by following launchers.
python=$("${PYTHON:-python3}" -c 'import sys; print(sys.executable)') || exit 2
wheels=${MMEVM_WHEELS:-build/gpu-wheels}
phases=$work/phases.tsv
mkdir -p "$work/logs" "$out" || exit 2
# The benchmark's report names the checks of an earlier call, too.
[[ ! $checks && -e $phases ]] || : >"$phases" || exit 2
began_at=$(wc -l <"$phases")
export PYTHONPATH=$PWD:$work/site${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 MMEVM_GPU_TEST_DEVICE=$device
unset TRITON_INTERPRET # kernels are meant, not their interpreter
failures=0

say() { printf '[%3d s] %s\n' "$SECONDS" "$*"; }

# report NAME OUTCOME SECONDS DETAIL: tells how a phase ended, now and to the benchmark's report.
report() {
  printf '%s\t%s\t%s\t%s\n' "$@" >>"$phases"
  say "$1: $2${4:+: $4}"
  case ${optional:+ok}$2 in ok* | 'left out') ;; *) failures=$((failures + 1)) ;; esac
}

# The last line with something in it.
last_line() { grep -v '^[[:space:]]*$' "$1" 2>/dev/null | tail -n 1 | tr '\t|' '  ' | cut -c 1-160; }

# phase NAME RESERVE COMMAND...: runs a command, leaving at least RESERVE seconds for the phases after it.
phase() {
  local name=$1 limit=$((DEADLINE - SECONDS - $2)) log=$work/logs/$1.log began=$SECONDS code outcome=ok
  shift 2
  say "$name (at most $limit s, $log)"
  if ((limit < 1)); then
    report "$name" 'no time left' 0 ''
    return 1
  fi
  timeout -k 5 "$limit" "$@" >"$log" 2>&1
  code=$?
  ((code == 0)) || outcome="failed ($code)"
  ((code != 124 && code != 137)) || outcome='out of time'
  report "$name" "$outcome" $((SECONDS - began)) "$(last_line "$log")"
  return "$code"
}

# Says what is wrong, if anything: 3 when the extension has no kernels for the device, 1 when mmevm does not import.
probe() {
  "$python" -c "
import sys
from mmevm.ops import extension
problem = extension.LOAD_ERROR or ('$device' not in extension.DEVICES and 'the extension has no $device kernels')
print(problem or 'ok')
sys.exit(3 if problem else 0)" 2>&1 | tail -n 1
  return "${PIPESTATUS[0]}"
}

if ! "$python" -c 'import torch' 2>/dev/null; then
  "$python" tools/_interpreter.py "$0" "${arguments[@]}"
  exit 2
elif [[ ! $dry_run ]] && ! "$python" -c 'import torch; torch.cuda.init()'; then
  say "$python has no torch that sees a GPU; --dry-run shows on the CPU that the check works"
  exit 2
fi

if ! "$python" -c 'import mmengine' 2>/dev/null && compgen -G "$wheels/*.whl" >/dev/null; then
  phase wheels 540 "$python" -m pip install -q --root-user-action ignore --no-index --no-deps --upgrade --target "$work/site" "$wheels"/*.whl
fi
began=$SECONDS
problem=$(probe)
found=$?
if ((found != 0 && found != 3)); then
  say "mmevm does not import: $problem; docs/gpu.md says which wheels to bring along in $wheels"
  exit 2
fi

# mamba_ssm compiles beside the next phases; it is wanted for the comparison, not needed. What the checks' call has
# compiled serves the benchmark's.
sdist=$(compgen -G "$wheels/mamba_ssm-*.tar.gz" | tail -n 1)
built=$(find "$work/mamba" -name 'selective_scan_cuda*.so' 2>/dev/null | head -n 1)
mamba=''
if [[ $sdist && ! $built && ! $dry_run ]]; then
  setsid "$python" benchmarks/gpu_mamba.py "$sdist" "$work/mamba" >"$work/logs/mamba_ssm.log" 2>&1 &
  mamba=$!
fi

if ((found == 0)); then
  report extension ok $((SECONDS - began)) 'prebuilt'
elif [[ $dry_run ]]; then
  report extension 'left out' $((SECONDS - began)) "$problem"
else
  phase 'extension build' 420 env MMEVM_BUILD_EXT=1 FORCE_CUDA=1 "$python" setup.py build_ext --inplace
  problem=$(probe)
  found=$?
  if ((found == 0)); then
    report extension ok $((SECONDS - began)) 'built here'
  else
    report extension failed $((SECONDS - began)) "$problem; continuing with Triton"
  fi
fi
# Where the kernels are there, tests may not skip them.
((found != 0)) || export MMEVM_REQUIRE_EXT=1

# sanitize TOOL BACKEND RESERVE: one backend under one tool.
sanitize() {
  local name="$1 $2" options=(--tool "$1" --error-exitcode 9 --target-processes application-only)
  [[ $1 != memcheck ]] || options+=(--report-api-errors no) # torch probes for what a driver may lack
  if [[ ! $sanitizer ]]; then
    report "$name" 'not run' 0 'there is no compute-sanitizer'
  else
    phase "$name" "$3" env PYTORCH_NO_CUDA_MEMORY_CACHING=1 "$sanitizer" "${options[@]}" "$python" -m tests.gpu.sanitize "$2"
  fi
}

if [[ $checks ]]; then
  workers=()
  [[ $dry_run ]] || ! "$python" -c 'import xdist' 2>/dev/null || workers=(-n 8 --dist loadgroup)
  # Eight processes of as many threads as the machine has would wait for each other.
  phase tests 150 env OMP_NUM_THREADS="${OMP_NUM_THREADS:-4}" \
    "$python" -m pytest tests/gpu tests/test_ops -m gpu -q -rfE -p no:cacheprovider "${workers[@]}"
  if [[ $dry_run ]]; then
    phase 'sanitizer (script alone)' 60 "$python" -m tests.gpu.sanitize # without a sanitizer, once tells everything
  else
    sanitizer=$(command -v compute-sanitizer || compgen -G '/usr/local/cuda*/bin/compute-sanitizer' | head -n 1)
    ((found != 0)) || sanitize memcheck compiled 100
    ((found != 0)) || sanitize racecheck compiled 60
    sanitize memcheck triton 30
    # Lanes of Triton's own reductions store the same word, which racecheck may call a hazard: for information.
    optional=1 sanitize racecheck triton 0
  fi
fi

if [[ $mamba ]]; then
  say 'mamba_ssm (as long as the benchmark can spare the time)'
  spare=$((benchmark ? 400 : 0))
  while kill -0 "$mamba" 2>/dev/null && ((SECONDS < DEADLINE - spare)); do sleep 0.2; done
  if kill -0 "$mamba" 2>/dev/null; then
    kill -- "-$mamba" 2>/dev/null
    report mamba_ssm 'left out' "$SECONDS" 'not compiled in time'
  elif wait "$mamba"; then
    report mamba_ssm ok "$SECONDS" "$(last_line "$work/logs/mamba_ssm.log")"
  else
    report mamba_ssm 'left out' "$SECONDS" "$(last_line "$work/logs/mamba_ssm.log")"
  fi
elif [[ $built ]]; then
  report mamba_ssm ok 0 "compiled earlier: $built"
else
  report mamba_ssm 'left out' 0 "no mamba_ssm-*.tar.gz in $wheels"
fi

if [[ $benchmark ]]; then
  options=()
  [[ ! -d $work/mamba ]] || options+=(--mamba "$work/mamba")
  phase benchmark 0 "$python" benchmarks/gpu.py $dry_run "${options[@]}" --checks "$phases" --out "$out"
fi

say "$failures of $(($(wc -l <"$phases") - began_at)) phases failed; results in $out, logs in $work/logs"
exit $((failures > 0))
