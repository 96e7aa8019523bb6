#!/usr/bin/env bash
# Makes the built-in optimizer, in about 40 minutes on one core: bash benchmarks/builtin/make.sh <folder of the data>
# The folder holds MNIST/raw, cifar10_images/{train,test}/<class> and text/tinyshakespeare.txt. The result: builtin.safetensors.
set -euo pipefail

metaopt train-optimizer --config benchmarks/builtin/rounds.yaml --data-dir "$1" --checkpoint-name builtin
python -m benchmarks.mean builtin.safetensors checkpoints/builtin/PerceiverOptimizer_epoch_{1,2,3}.safetensors
