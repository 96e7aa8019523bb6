#!/usr/bin/env bash
# Makes the fast built-in optimizer, in about 45 minutes on one core: bash benchmarks/builtin/fast.sh <folder of the data>
# The folder holds MNIST/raw, cifar10_images/{train,test}/<class> and text/tinyshakespeare.txt. The result: fast.safetensors.
set -euo pipefail

metaopt train-optimizer --config benchmarks/builtin/fast.yaml --data-dir "$1" --checkpoint-name builtin_fast
python -m benchmarks.mean fast.safetensors checkpoints/builtin_fast/PerceiverOptimizer_epoch_{1,2,3}.safetensors
