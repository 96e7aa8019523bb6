#!/usr/bin/env bash
# All tests with the marker `gpu`, and figures, on a GPU: made to take less than 6 minutes, without a network.
#
#   benchmarks/gpu.sh          needs Python 3.12, torch 2.11 or newer, transformers and pytest
#   benchmarks/gpu.sh cpu      tries the same with a small network on the CPU
#
# Tests of whole commands are skipped where MLflow is not installed.
# Where perceiver-pytorch is not installed, WHEELS names a folder with its wheel (`pip download --no-deps`).
set -euo pipefail
cd "$(dirname "$0")/.."
device=${1:-cuda}
python=${PYTHON:-python3}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
if [ -n "${WHEELS:-}" ]; then
  packages=$(mktemp -d)
  "$python" -m pip install -q --no-index --no-deps --target "$packages" "$WHEELS"/*.whl
  export PYTHONPATH="$PYTHONPATH:$packages"
fi
"$python" -c 'import platform, torch; print("Python", platform.python_version(), "torch", torch.__version__)'
METAOPT_TEST_DEVICE=$device "$python" -m pytest -q -m gpu tests/gpu
if [ "$device" = cpu ]; then
  "$python" -m benchmarks.gpu --device cpu --steps 40 --cases "small;small, cpu bfloat16"
else
  "$python" -m benchmarks.gpu --device "$device"
fi
