#!/bin/sh
# What tools/fuzz.sh says of a target that ends by the number of its inputs, by its time before them, or
# with a fault; by stand-ins that print what libFuzzer prints.
# Usage: fuzz.sh SCRIPT
set -eu
script=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
say() {
    cat "$dir/out"
    echo "fuzz.sh: $*" >&2
    exit 1
}
target() { # NAME RUNS STATUS
    printf '#!/bin/sh\necho "stat::number_of_executed_units: %s"\nexit %s\n' "$2" "$3" >"$dir/tests/fuzz/fuzz_$1"
    chmod +x "$dir/tests/fuzz/fuzz_$1"
}
run() {
    status=0
    "$script" "$dir" 7 "$@" >"$dir/out" 2>&1 || status=$?
}

mkdir -p "$dir/tests/fuzz"
run
[ "$status" -ne 0 ] || say "no targets pass"
target whole 10000 0
run 1 1 10000
[ "$status" -eq 0 ] && grep -q '^ok  *fuzz_whole: 10000 runs$' "$dir/out" || say "a target with all its inputs"
target short 9999 0
run 1 1 10000
[ "$status" -ne 0 ] && grep -q '^SHORT  *fuzz_short: 7 s were over after 9999 of 10000 runs$' "$dir/out" ||
    say "a target that was ended before its inputs"
grep -q '^ok  *fuzz_whole: ' "$dir/out" || say "one that is short keeps others from running"
run 2
[ "$status" -eq 0 ] && grep -q '^ok  *fuzz_short: 9999 runs$' "$dir/out" || say "a target with time only"
target faulty 3 77
run
[ "$status" -ne 0 ] && grep -q '^FAILED fuzz_faulty: status 77' "$dir/out" || say "a target that fails"
