#!/bin/sh
# The main job on the model that ships: a few questions under a budget that holds less than half of its
# experts. Usage: demo.sh BINARY MODEL
set -eu
binary=$1
model=$2
budget=${3:-18M}

"$binary" plan -m "$model" --memory "$budget" -c 512 -t 2
for question in "what does stump mean" "Can you tell me what a finger wave is?" \
    "What is the opposite of mature?" "What kind of thing is a telephone system?"; do
    printf '\n> %s\n' "$question"
    "$binary" run -m "$model" --memory "$budget" -c 512 -t 2 --temp 0 -p "$question"
done
