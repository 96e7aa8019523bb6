#!/bin/bash
# Trains a HopeOptimizer and a PerceiverOptimizer on the same problems. Run it from the root of the repository.
# Argument: the folder that holds MNIST/raw, cifar10_images/{train,test}/<class> and text/tinyshakespeare.txt.
set -euo pipefail
data=${1:?the folder with the data}
train() {
    local options=()
    for option in "${@:2}"; do options+=(--optimizer-options "$option"); done
    metaopt train-optimizer --config benchmarks/nested/optimizers/train.yaml --data-dir "$data" --threads 1 \
        --optimizer-model "$1" --checkpoint-name "$1" "${options[@]}"
}
train HopeOptimizer averaging=0.98
train PerceiverOptimizer averaging=0.98 start=slopes history=9 spacing=doubling dim=64 latent_dim=64 num_latents=16 hidden=96
