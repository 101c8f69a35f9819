#!/bin/sh
# All evidence of the Metal backend on a Mac: builds with the system's toolchain, runs the tests, and
# holds what the device computes against what others and the CPU compute. Writes a report with system,
# compiler and commit to bench/results/metal-DATE.json. Needs Homebrew's packages (tools/packages.sh
# says which) and python3 with numpy. Usage: metal_evidence.sh [BUILD [ORACLE]]
# A test that fails, or can't be built, doesn't keep the report from being written; the status at the
# end tells.
# ORACLE: folder with hf/ and gguf/ of the outside evidence; without it the checkpoints of tests/data.
set -eu
cd "$(dirname "$0")/.."
build=${1:-build-metal}
oracle=${2:-../shared/oracle}
report=bench/results/metal-$(date +%Y%m%d-%H%M%S).json

tools/packages.sh
python3 -c 'import numpy' || { echo "python3 needs numpy" >&2; exit 1; }
cmake -S . -B "$build" -G Ninja -DMF_METAL=ON -DMF_WERROR=ON
failed=0
cmake --build "$build" -- -k 0 || failed=1
ctest --test-dir "$build" --output-on-failure || failed=1
mkdir -p bench/results
python3 tools/gpu_evidence.py "$build" "$oracle" --device metal --models tests/data/mlx-tiny \
    --commit "$(git rev-parse HEAD 2>/dev/null || echo unknown)" -o "$report" || failed=1
[ ! -f "$report" ] || echo "report: $report"
exit $failed
