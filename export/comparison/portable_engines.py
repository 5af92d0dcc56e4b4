"""The portable graphs of a bundle on ONNX Runtime, as they are: what its engines should compute."""

from __future__ import annotations

from ...bundle import Bundle, StageEntry
from ...errors import BackendUnavailable
from ...runtime.engines.onnxruntime import OnnxRuntimeEngine
from ...runtime.engines.onnxruntime_library import import_onnxruntime
from ...sidecar import EngineSidecar
from ..graphs.dialect import MODERN

PORTABLE = "portable"
"""Stands for them where a target is asked for."""
PORTABLE_SINCE = (1, 24)


def portable_engines(bundle: Bundle) -> tuple[OnnxRuntimeEngine, ...]:
    """An engine for every stage, on one thread.

    Raises:
        BackendUnavailable: this onnxruntime does not know their opset.
    """
    if bundle.manifest.dialect == MODERN.name:
        check_runs_portable_graphs(import_onnxruntime().__version__)
    return tuple(_engine(bundle, entry) for entry in bundle.manifest.stages)


def _engine(bundle: Bundle, entry: StageEntry) -> OnnxRuntimeEngine:
    precision = bundle.manifest.precision
    sidecar = EngineSidecar(
        target="cpu",
        stage=entry.spec.name,
        builder="the portable graph",
        precision_asked=precision,
        precision_obtained=precision,
        graph_sha256=bundle.manifest.files[entry.graph].sha256,
        cache_widths=tuple(cache.width for cache in entry.spec.caches),
        cache_dtype=entry.spec.cache_dtype,
    )
    # Optimised, products of dequantised weights would become kernels that round the activations too.
    return OnnxRuntimeEngine(entry.spec, bundle.file(entry.graph), sidecar, threads=1, optimised=precision == "fp32")


def check_runs_portable_graphs(version: str) -> None:
    """Raise BackendUnavailable if that version of ONNX Runtime knows no opset 24."""
    if tuple(map(int, version.split(".")[:2])) < PORTABLE_SINCE:
        raise BackendUnavailable(
            f"the portable graphs run on onnxruntime {PORTABLE_SINCE[0]}.{PORTABLE_SINCE[1]} or later (for Python 3.11 or "
            f"later), got {version}; compare with them on another machine: the engines themselves do run here"
        )
