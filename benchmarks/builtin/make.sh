#!/usr/bin/env bash
# Makes the built-in optimizer, in about 3.5 hours on one core: bash benchmarks/builtin/make.sh <folder of the data>
# The folder holds MNIST/raw, cifar10_images/{train,test}/<class> and text/tinyshakespeare.txt. The result: builtin.safetensors.
set -euo pipefail

rounds() { # <name> <optimizer to start from> <further flags>
  metaopt train-optimizer --config benchmarks/builtin/rounds.yaml --data-dir "$data" --checkpoint-name "$1" --start-from "$2" "${@:3}"
}
after() { # <name> <epoch>...
  for epoch in "${@:2}"; do echo "checkpoints/$1/PerceiverOptimizer_epoch_$epoch.safetensors"; done
}

data="$1"
metaopt train-optimizer --config benchmarks/builtin/warm_up.yaml --data-dir "$data" --checkpoint-name builtin_a
rounds builtin_b "$(after builtin_a 2)" --rounds 10 --lr 7e-4 --average 0.998 --seed 1
rounds builtin_c "$(after builtin_b 9)" --rounds 24 --lr 1e-3 --average 0.99 --seed 2
python -m benchmarks.mean mean.safetensors $(after builtin_c 13 15 17 19 21 23)
rounds builtin_d mean.safetensors --rounds 12 --lr 3e-4 --average 0.995 --seed 3
python -m benchmarks.mean builtin.safetensors $(after builtin_c 23) mean.safetensors $(after builtin_d 11)
