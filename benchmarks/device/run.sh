#!/usr/bin/env bash
# Everything that this repository measures on a GPU machine without network, within a given time:
#
#     OUT=FOLDER bash benchmarks/device/run.sh [MINUTES]        (default: 9.5 minutes, ./outputs/device)
#
# Stages, the most valuable first; each has its own time limit and its own processes, and what one does leaves the next alone:
#   1. correctness.py, and beside it the tests of the reference vectors and of CUDA graphs
#   2. speed.py, then concurrency.py: how many small runs at a time are fastest
#   3. ../claims.py, for the rest of the time
# Every stage writes JSON lines as it goes: what is under $OUT counts whenever the run is ended. collect.py takes them from there.
#
# Variables: DEVICE_KIT (.device-kit), PYTHON (python3), CORRECTNESS_SECONDS, SPEED_SECONDS, CONCURRENCY_SECONDS (0 leaves a stage out),
# CORRECTNESS_OPTIONS, SPEED_OPTIONS, CLAIM_OPTIONS (further words for the stage; --whole_runs),
# STALE_KIT=allowed (use a kit that does not fit the code, at one's own risk).
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
ROOT=$PWD
HERE=benchmarks/device
PYTHON=${PYTHON:-python3}
KIT=$(realpath -m "${DEVICE_KIT:-.device-kit}")
OUT=${OUT:-$ROOT/outputs/device}
MINUTES=${1:-9.5}
GATHER_SECONDS=15

if ! TOTAL=$(awk -v minutes="$MINUTES" 'BEGIN { if (minutes !~ /^[0-9]+(\.[0-9]+)?$/ || minutes * 60 < 1) exit 1; print int(minutes * 60) }'); then
    echo "run.sh: expected a number of minutes such as 9 or 0.5, got '$MINUTES'" >&2
    exit 2
fi
mkdir -p "$OUT" || exit 1
OUT=$(realpath "$OUT")
exec > >(tee -a "$OUT/log.txt") 2>&1

left() { echo $((TOTAL - SECONDS)); }
smaller() { echo $(($1 < $2 ? $1 : $2)); }

WORK=$(mktemp -d)
WATCHER=
cleanup() {
    [ -n "$WATCHER" ] && kill "$WATCHER" 2>/dev/null
    rm -rf "$WORK"
}
trap cleanup EXIT
trap 'exit 143' TERM INT

# stage NAME SECONDS COMMAND...: never longer than that, and never the end of the script.
stage() {
    local name=$1 limit=$2 began=$SECONDS code
    shift 2
    echo "== $name: at most $limit s, $(left) s left"
    timeout --kill-after=5 "$limit" "$@"
    code=$?
    case $code in
    0) echo "== $name: done after $((SECONDS - began)) s" ;;
    124 | 137) echo "== $name: cut off after $((SECONDS - began)) s" ;;
    *) echo "== $name: ended with code $code after $((SECONDS - began)) s" ;;
    esac
    echo "{\"stage\": \"$name\", \"limit\": $limit, \"seconds\": $((SECONDS - began)), \"code\": $code}" >>"$OUT/stages.jsonl"
}

echo "== $(date -u +%FT%TZ): $MINUTES minutes, results under $OUT"
if ! "$PYTHON" $HERE/kit.py check --folder "$KIT"; then
    [ "${STALE_KIT:-}" = allowed ] || exit 3
    echo "device kit: used all the same, because STALE_KIT=allowed"
fi
"$PYTHON" $HERE/kit.py unpack "$WORK/site" --folder "$KIT" || exit 4

export PYTHONPATH="$ROOT/src:$ROOT/benchmarks:$WORK/site" PYTHONUNBUFFERED=1
export HF_MASKSSL_SHARED=$KIT HF_MASKSSL_CLAIMS_DATA=$KIT/claims HF_HOME=$WORK/huggingface HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1
export TOKENIZERS_PARALLELISM=false TORCHINDUCTOR_CACHE_DIR=$WORK/inductor TRITON_CACHE_DIR=$WORK/triton MPLCONFIGDIR=$WORK/matplotlib
HF_MASKSSL_COMMIT=$("$PYTHON" $HERE/kit.py commit --folder "$KIT")
export HF_MASKSSL_COMMIT
command -v nvidia-smi >/dev/null && nvidia-smi --format=csv \
    --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.max.sm,clocks.max.mem,power.limit,temperature.gpu
timeout 60 "$PYTHON" $HERE/records.py machine "$OUT/machine.jsonl" || exit 5
DEVICE=$("$PYTHON" -c 'import torch; print("cuda" if torch.cuda.is_available() else "cpu")')
echo "== set up after $SECONDS s, device $DEVICE"

CORRECTNESS_SECONDS=${CORRECTNESS_SECONDS:-$(smaller 75 $((TOTAL / 7)))}
SPEED_SECONDS=${SPEED_SECONDS:-$(smaller 180 $((TOTAL / 3)))}

# 1. Tests run beside the checks: they need other cores, and little of the card.
if [ "$CORRECTNESS_SECONDS" -gt 0 ]; then
    TESTS=()
    for path in tests/training/test_cuda_graphs.py tests/hub/test_conversion.py tests/hub/test_conversion_sma.py \
        tests/models/test_multimae_golden.py tests/models/test_guided_masking_golden.py tests/models/test_second_order.py; do
        [ -f $path ] && TESTS+=($path)
    done
    OMP_NUM_THREADS=2 timeout --kill-after=5 "$CORRECTNESS_SECONDS" "$PYTHON" -m pytest -p no:cacheprovider -q --tb=short \
        --basetemp="$WORK/pytest" --junitxml="$WORK/tests.xml" "${TESTS[@]}" >"$WORK/tests.txt" 2>&1 &
    TESTING=$!
    stage correctness "$CORRECTNESS_SECONDS" "$PYTHON" $HERE/correctness.py --device "$DEVICE" \
        --until $(($(date +%s) + CORRECTNESS_SECONDS - 4)) --output "$OUT/correctness.jsonl" ${CORRECTNESS_OPTIONS:-}
    wait "$TESTING"
    tail -n 25 "$WORK/tests.txt"
    timeout 20 "$PYTHON" $HERE/records.py tests "$OUT/correctness.jsonl" "$WORK/tests.xml"
fi

# 2.
if [ "$SPEED_SECONDS" -gt 0 ]; then
    stage speed "$(smaller "$SPEED_SECONDS" "$(($(left) > 1 ? $(left) : 1))")" "$PYTHON" $HERE/speed.py --device "$DEVICE" \
        --until $(($(date +%s) + SPEED_SECONDS - 4)) --output "$OUT/speed.jsonl" ${SPEED_OPTIONS:-}
fi

# How many small runs at a time the card does fastest, and with or without graphs and the multi-process service.
CONCURRENCY_SECONDS=${CONCURRENCY_SECONDS:-$(smaller 130 $((TOTAL / 4)))}
BEST=$WORK/fastest.json
if [ "$CONCURRENCY_SECONDS" -gt 0 ] && [ "$DEVICE" = cuda ]; then
    stage concurrency "$(smaller "$CONCURRENCY_SECONDS" "$(($(left) > 1 ? $(left) : 1))")" "$PYTHON" $HERE/concurrency.py \
        --seconds $((CONCURRENCY_SECONDS - 5)) --output "$OUT/speed.jsonl" --best "$BEST"
fi
FASTEST=${FASTEST:-}
[ -z "$FASTEST" ] && [ -f "$BEST" ] && FASTEST=$(cat "$BEST")
if [ -n "$FASTEST" ]; then
    echo "== claims run as is fastest: $FASTEST"
    WORKERS=$(echo "$FASTEST" | "$PYTHON" -c 'import json, sys; print("--workers", json.load(sys.stdin)["workers"])')
    WORKERS+=$(echo "$FASTEST" | "$PYTHON" -c 'import json, sys; print("" if json.load(sys.stdin)["graphs"] else " --eager")')
    if echo "$FASTEST" | grep -q '"multi_process_service": true'; then
        export CUDA_MPS_PIPE_DIRECTORY=$WORK/mps CUDA_MPS_LOG_DIRECTORY=$WORK/mps_log
        mkdir -p "$CUDA_MPS_PIPE_DIRECTORY" "$CUDA_MPS_LOG_DIRECTORY"
        nvidia-cuda-mps-control -d || unset CUDA_MPS_PIPE_DIRECTORY CUDA_MPS_LOG_DIRECTORY
    fi
fi

# 3. Results that are committed count as done; the new ones are gathered while they come.
REST=$(($(left) - GATHER_SECONDS))
if [ ! -f benchmarks/claims.py ]; then
    echo "== claims: left out, there is no benchmarks/claims.py"
elif [ "$REST" -lt 10 ]; then
    echo "== claims: left out, $(left) s are left and $GATHER_SECONDS s are kept for gathering"
else
    mkdir -p "$WORK/claims"
    [ -d benchmarks/results/claims ] && cp -r benchmarks/results/claims/. "$WORK/claims"
    "$PYTHON" $HERE/records.py gather "$OUT/claims.jsonl" "$WORK/claims" --known benchmarks/results/claims --every 10 &
    WATCHER=$!
    HOURS=$(awk -v seconds="$((REST - 8))" 'BEGIN { print seconds / 3600 }')
    # Whole runs: what is not finished stays behind.
    stage claims "$REST" "$PYTHON" benchmarks/claims.py --device "$DEVICE" --hours "$HOURS" --results "$WORK/claims" \
        --work_dir "$WORK/claims_work" ${WORKERS:-} ${CLAIM_OPTIONS---whole_runs}
    kill "$WATCHER" 2>/dev/null
    wait "$WATCHER" 2>/dev/null
    WATCHER=
    timeout 10 "$PYTHON" $HERE/records.py gather "$OUT/claims.jsonl" "$WORK/claims" --known benchmarks/results/claims
    [ -n "${CUDA_MPS_PIPE_DIRECTORY:-}" ] && echo quit | nvidia-cuda-mps-control
    tail -qn 4 "$WORK"/claims_work/worker*.log 2>/dev/null | cut -c1-300 | sort | uniq -c | sort -rn | head -n 40
fi
echo "== finished after $SECONDS of $TOTAL s:"
wc -l "$OUT"/*.jsonl
