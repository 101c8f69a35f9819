#!/bin/sh
# Runs every fuzz target of a build for some seconds each, starting from the seeds kept in the project.
# Usage: fuzz.sh BUILD SECONDS
set -eu
build=$1
seconds=$2
top=$(cd "$(dirname "$0")/.." && pwd)
failed=0
n=0
for target in "$build"/tests/fuzz/fuzz_*; do
    [ -x "$target" ] && [ -f "$target" ] || continue
    name=$(basename "$target")
    seeds="$top/tests/fuzz/seeds/${name#fuzz_}"
    corpus=$(mktemp -d)
    n=$((n + 1))
    if ! "$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="$build/$name-" "$corpus" "$seeds" >"$build/$name.log" 2>&1; then
        echo "FAILED $name (log and input in $build)"
        tail -n 30 "$build/$name.log"
        failed=1
    else
        echo "ok     $name: $(grep -o 'stat::number_of_executed_units: *[0-9]*' "$build/$name.log" | grep -o '[0-9]*$') runs"
    fi
    rm -rf "$corpus"
done
[ "$n" -gt 0 ] || { echo "no fuzz targets in $build" >&2; exit 1; }
exit "$failed"
