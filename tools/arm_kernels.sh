#!/bin/bash
# Builds the kernels and their tests for 64-bit ARM, statically and without any library, and runs them
# under qemu-user on processors of each level: one without dot products of bytes (where everything has to be
# plain C), one with them and without I8MM, and one with all. An instruction above its level ends a test.
# Needs gcc-aarch64-linux-gnu, libc6-dev-arm64-cross and qemu-user-static; exits with 77 where one is missing.
# Usage: tools/arm_kernels.sh BUILD_FOLDER [JOBS]; with --if-asked before that, only where MF_ARM is set
# in the environment: it takes minutes, which CTest shows as skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "$1" = --if-asked ]; then
    [ -n "${MF_ARM:-}" ] || { echo "skipped: set MF_ARM=1, or run .ci/run arm" >&2; exit 77; }
    shift
fi
build=$1
jobs=${2:-$(nproc)}
export CC=${ARM_CC:-aarch64-linux-gnu-gcc} build
qemu=${ARM_QEMU:-qemu-aarch64-static}
for tool in "$CC" "$qemu"; do
    command -v "$tool" >/dev/null || { echo "skipped: no $tool" >&2; exit 77; }
done

export FLAGS="-std=gnu11 -O2 -g1 -D_GNU_SOURCE -ffp-contract=off -fno-math-errno -Wall -Wextra -Wshadow
    -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla -Werror
    -Iinclude -Isrc -Itests -Itests/arm -DMFT_ROUNDS=4 -DMF_ORACLE_DIR=\"\" -DMF_SOURCE_DIR=\"$PWD\""
mkdir -p "$build"

compile() {
    local source=$1 level=
    case $source in
    *_neon.c) level=-march=armv8.2-a+dotprod ;;
    *_i8mm.c) level=-march=armv8.2-a+dotprod+i8mm ;;
    esac
    # shellcheck disable=SC2086 # lists of words
    $CC $FLAGS $level -c "$source" -o "$build/$(basename "$source" .c).o"
}
export -f compile

library=(src/kernels/*.c src/kernels/ref/*.c src/kernels/arm/*.c src/quant/*.c src/os/cpu.c src/base/status.c
    tests/fake/support.c tests/fake/guard.c tests/fake/kernel_case.c)
tests=(tests/arm/levels.c)
for source in tests/unit/test_kernels_*.c; do
    [[ $source == *avxvnni* ]] || tests+=("$source")
done
printf '%s\n' "${library[@]}" "${tests[@]}" | xargs -P "$jobs" -I{} bash -c 'compile {}' || exit 1

objects=()
for source in "${library[@]}"; do
    objects+=("$build/$(basename "$source" .c).o")
done
for source in "${tests[@]}"; do
    name=$(basename "$source" .c)
    "$CC" -static -o "$build/$name" "$build/$name.o" "${objects[@]}" -lm
done

# A processor, and the levels that it has to show: a test of one that isn't found would be none.
run() {
    local cpu=$1 levels=$2 name found
    found=$("$qemu" -cpu "$cpu" "$build/levels")
    [ "$found" = "$levels" ] || { echo "$cpu has $found, not $levels"; return 1; }
    for name in "${names[@]}"; do
        "$qemu" -cpu "$cpu" "$build/$name" >"$build/$name.$cpu.log" 2>&1 ||
            { echo "$name on $cpu: exit $?"; cat "$build/$name.$cpu.log"; return 1; }
        echo "$name on $cpu ($levels): $(grep -c '^ok' "$build/$name.$cpu.log") tests"
    done
}
names=()
for source in "${tests[@]:1}"; do
    names+=("$(basename "$source" .c)")
done
pids=()
run cortex-a72 c & pids+=($!)
run neoverse-n1 "c neon" & pids+=($!)
run max "c neon i8mm" & pids+=($!)
status=0
for pid in "${pids[@]}"; do
    wait "$pid" || status=1
done
exit $status
