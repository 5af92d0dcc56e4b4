"""Checks that need a CUDA device; `make gpu-check` runs them. Elsewhere each is skipped with the reason."""

from __future__ import annotations

import shutil

import onnxruntime
import pytest
from specimens import Zoo

pytestmark = pytest.mark.gpu
PROVIDER = "CUDAExecutionProvider"


@pytest.fixture(autouse=True)
def _needs_a_gpu() -> None:
    if shutil.which("nvidia-smi") is None:
        pytest.skip("no NVIDIA driver on this machine (nvidia-smi is not there)")
    if PROVIDER not in onnxruntime.get_available_providers():
        pytest.skip("the onnxruntime installed here has no CUDA provider; install foveal[cuda] instead of foveal[cpu]")


def test_portable_graphs_load_on_the_cuda_provider(zoo: Zoo) -> None:
    """And really on it: ONNX Runtime falls back to the CPU without a word."""
    bundle = zoo["nested"].bundle
    for entry in bundle.manifest.stages:
        session = onnxruntime.InferenceSession(str(bundle.file(entry.graph)), providers=[PROVIDER])
        assert session.get_providers()[0] == PROVIDER
