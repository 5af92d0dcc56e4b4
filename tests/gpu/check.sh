#!/bin/sh
# make gpu-check: the checks in tests/gpu, in an environment that has what this machine's GPU needs.
#
# onnxruntime-gpu and onnxruntime overwrite each other, and a Jetson's tensorrt is a package of the system: where there is a GPU, the
# checks get an environment of their own. What pip does not find for a machine is left out; the report says what was skipped.
set -eu
export PYTHON="${PYTHON:-python3}" TORCH_INDEX="${TORCH_INDEX:-}"

has_gpu() {
    command -v nvidia-smi >/dev/null || [ -e /etc/nv_tegra_release ]
}

make_gpu_environment() {
    pip="$1/bin/python -m pip install --quiet --disable-pip-version-check"
    "$PYTHON" -m venv --system-site-packages "$1"
    $pip ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -e ".[export]" "cuda-bindings>=12.9" "nvtx>=0.2" pytest hypothesis
    $pip onnxruntime-gpu || $pip onnxruntime
    "$1/bin/python" -c "import tensorrt" 2>/dev/null || $pip tensorrt || echo "no tensorrt for this machine"
    $pip tensorrt-rtx || echo "no tensorrt-rtx for this machine"
    $pip onnxruntime-ep-nv-tensorrt-rtx-cu13 || echo "no TensorRT-RTX provider for this machine"
    touch "$1/.ready"
}

if has_gpu; then
    environment=.venv-gpu
    [ -e "$environment/.ready" ] || make_gpu_environment "$environment"
else
    environment=.venv
    make "$environment/.dev" PYTHON="$PYTHON" TORCH_INDEX="$TORCH_INDEX"
fi
# Warnings of libraries that this version of foveal does not know are shown, not errors as in the tests.
exec "$environment/bin/python" -m pytest tests/gpu -rs -W default --report build/gpu-check "$@"
