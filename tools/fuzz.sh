#!/bin/sh
# Runs every fuzz target of a build for some seconds each, starting from the seeds kept in the project.
# Usage: fuzz.sh BUILD SECONDS [JOBS [SEED [RUNS]]]; JOBS targets at a time (1), SEED of libFuzzer (0:
# another each time), RUNS inputs each (-1: as many as time allows). With a seed they are the same ones on
# every machine that is quick enough; where SECONDS end a target before its RUNS, that is a failure, since
# it didn't try what it should have. Logs, and inputs that fail, are left in BUILD.
set -eu

run_one() {
    target=$1
    name=$(basename "$target")
    log="$build/$name.log"
    corpus=$(mktemp -d)
    status=0
    "$target" -max_total_time="$seconds" -seed="$seed" -runs="$most" -timeout=20 -rss_limit_mb=2048 \
        -print_final_stats=1 -artifact_prefix="$build/$name-" \
        "$corpus" "$top/tests/fuzz/seeds/${name#fuzz_}" >"$log" 2>&1 || status=$?
    rm -rf "$corpus"
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    if [ "$status" -ne 0 ]; then
        tail -n 40 "$log"
        echo "FAILED $name: status $status (log and input in $build)"
        return 1
    fi
    if [ "$most" -ge 0 ] && [ "${runs:-0}" -lt "$most" ]; then
        echo "SHORT  $name: $seconds s were over after ${runs:-no} of $most runs"
        return 1
    fi
    echo "ok     $name: ${runs:-an unknown number of} runs"
}

if [ "$1" = --one ]; then
    build=$2 seconds=$3 seed=$4 most=$5 top=$6
    run_one "$7"
    exit
fi

build=$1
seconds=$2
jobs=${3:-1}
seed=${4:-0}
most=${5:--1}
top=$(cd "$(dirname "$0")/.." && pwd)
targets=$(find "$build/tests/fuzz" -maxdepth 1 -type f -name 'fuzz_*' -perm -u+x 2>/dev/null | sort)
[ -n "$targets" ] || {
    echo "no fuzz targets in $build" >&2
    exit 1
}
printf '%s\0' "$targets" | tr '\n' '\0' |
    xargs -0 -n 1 -P "$jobs" "$top/tools/fuzz.sh" --one "$build" "$seconds" "$seed" "$most" "$top"
