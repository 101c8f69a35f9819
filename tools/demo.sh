#!/bin/sh
# The main job on the model that ships: a few questions under a budget that holds less than half of its
# experts, and a look at whether that is what happened. Usage: demo.sh BINARY MODEL [BUDGET]
set -eu
binary=$1
model=$2
budget=${3:-18M}

ask() {
    question=$1
    shift
    "$binary" run -m "$model" --memory "$budget" -c 512 -t 2 --temp 0 -p "$question" "$@"
}

"$binary" plan -m "$model" --memory "$budget" -c 512 -t 2
for question in "what does stump mean" "Can you tell me what a finger wave is?" \
    "What is the opposite of mature?" "What kind of thing is a telephone system?"; do
    printf '\n> %s\n' "$question"
    ask "$question"
done

json=$(ask "what does stump mean" --json)
number() { # the value of a key of "experts" or "memory"
    value=$(printf '%s\n' "$json" | sed -n "s/.*\"$1\":{[^}]*\"$2\":\([0-9][0-9]*\).*/\1/p")
    [ -n "$value" ] || {
        echo "demo: no $1.$2 in $json" >&2
        exit 1
    }
    echo "$value"
}
evictions=$(number experts evictions)
read_bytes=$(number experts bytes_read)
slot_bytes=$(number experts slot_bytes)
total_bytes=$(number experts total_bytes)
peak_bytes=$(number memory peak_bytes)
budget_bytes=$(number memory budget_bytes)
[ "$evictions" -gt 0 ] && [ "$read_bytes" -gt "$slot_bytes" ] &&
    [ $((2 * slot_bytes)) -lt "$total_bytes" ] && [ "$peak_bytes" -le "$budget_bytes" ] || {
    echo "demo: the experts were not streamed within the budget: $json" >&2
    exit 1
}
printf '\nOne answer read %d KiB of experts through slots of %d KiB (%d evictions; all experts are %d KiB)\n' \
    $((read_bytes / 1024)) $((slot_bytes / 1024)) "$evictions" $((total_bytes / 1024))
printf 'and took %d KiB of memory at most, within a budget of %d KiB.\n' \
    $((peak_bytes / 1024)) $((budget_bytes / 1024))
