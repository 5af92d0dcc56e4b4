"""Which of ONNX Runtime's execution providers resident engines run on, and how each is set up."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from ...errors import BackendUnavailable, EngineMismatchError, install, reason_of
from ...files import cache_directory
from ...storage import said
from .onnxruntime_library import import_onnxruntime, open_session, session_options

_log = logging.getLogger(__name__)
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "tensorrt-rtx": "NvTensorRTRTXExecutionProvider",
}
"""`cpu` runs the graphs that a GPU would run, through the same code, where there is none. The GPU's three: NOT RUN so far."""

SHAPE_OPS = {"Add", "Cast", "Concat", "Constant", "Div", "Expand", "Gather", "Identity", "Mul", "Range", "Reshape"}
SHAPE_OPS |= {"Shape", "Size", "Slice", "Squeeze", "Sub", "Unsqueeze"}
"""What the sizes and indices of a stage graph are computed by."""


def open_resident_session(path: Path, stage: str, builder: str, provider: str, stream: int) -> Any:
    """A session of a resident stage graph.

    Args:
        path: the graph.
        stage, builder: for error messages.
        provider: one of `PROVIDERS`.
        stream: the CUDA stream to queue on; unused by `cpu`.

    Raises:
        BackendUnavailable: the provider's library, or a GPU for it, is not there.
        EngineMismatchError: the graph can't be loaded, or not all of it runs on the provider.
    """
    options = session_options()
    if provider == "cpu":
        options.add_session_config_entry("session.disable_quant_qdq", "1")  # its own int8 kernels compute something else
        return open_session(path, stage, builder, options, PROVIDERS[provider])
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if provider == "tensorrt-rtx":
        session = _open_plugin_session(path, stage, builder, options, stream)
    else:
        session = _open_built_in_session(path, stage, builder, options, provider, stream)
    _check_placement(session, stage, provider)
    return session


def _open_built_in_session(path: Path, stage: str, builder: str, options: Any, provider: str, stream: int) -> Any:
    settings = {"device_id": "0", "user_compute_stream": str(stream)}
    if provider == "cuda":
        settings |= {"use_tf32": "0"}  # on by default; fp32 products would keep 10 bits of mantissa
    if provider == "tensorrt":
        settings |= _tensorrt_caches(cache_directory() / "onnxruntime-tensorrt")
    available = import_onnxruntime().get_available_providers()
    if PROVIDERS[provider] not in available:
        raise BackendUnavailable(
            f"this onnxruntime has no {PROVIDERS[provider]}, only {', '.join(available)}; "
            f"uninstall onnxruntime, then {install('cuda')}"
        )
    return open_session(path, stage, builder, options, PROVIDERS[provider], settings)


def _tensorrt_caches(directory: Path) -> dict[str, str]:
    """Settings that keep what TensorRT builds; none where nothing can be kept."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _log.warning("can't keep what TensorRT builds: %s; it is built again next time", said(error))
        return {}
    kept = {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(directory)}
    return kept | {"trt_timing_cache_enable": "1", "trt_timing_cache_path": str(directory)}


def _check_placement(session: Any, stage: str, provider: str) -> None:
    """Raise EngineMismatchError if more than the arithmetic of shapes was left to the CPU, which would copy at every step.

    ONNX Runtime leaves that arithmetic to the CPU on purpose; its own option to forbid the CPU would forbid it too.
    """
    left = [
        node.op_type
        for part in session.get_provider_graph_assignment_info()
        if part.ep_name == PROVIDERS["cpu"]
        for node in part.get_nodes()
        if node.op_type not in SHAPE_OPS
    ]
    if left:
        raise EngineMismatchError(
            f'{PROVIDERS[provider]} leaves {len(left)} operators of stage "{stage}" to the CPU: '
            f"{', '.join(sorted(set(left)))}; "
            "upgrade onnxruntime, or build for tensorrt or tensorrt-rtx"
        )


def _open_plugin_session(path: Path, stage: str, builder: str, options: Any, stream: int) -> Any:
    """TensorRT-RTX is a plugin of onnxruntime: registered once for the process, then chosen by its devices."""
    ort, name = import_onnxruntime(), PROVIDERS["tensorrt-rtx"]
    devices = [device for device in ort.get_ep_devices() if device.ep_name == name]
    if not devices:
        _register_plugin(ort, name)
        devices = [device for device in ort.get_ep_devices() if device.ep_name == name]
    if not devices:
        raise BackendUnavailable(f"{name} finds no GPU that it runs on; `foveal doctor` shows what this machine has")
    options.add_provider_for_devices(devices[:1], {"user_compute_stream": str(stream)})
    try:
        return ort.InferenceSession(str(path), options)
    except Exception as error:  # onnxruntime's exceptions share no base class
        reason = reason_of(error)
        raise EngineMismatchError(f'{name} can\'t load the engine of stage "{stage}", built by {builder}: {reason}') from error


def _register_plugin(ort: Any, name: str) -> None:
    try:
        import onnxruntime_ep_nv_tensorrt_rtx as plugin

        ort.register_execution_provider_library(name, plugin.get_library_path())
    except Exception as error:  # onnxruntime's exceptions share no base class
        raise BackendUnavailable(
            f"{name} can't be registered ({reason_of(error)}); "
            "it needs an NVIDIA driver and: pip install onnxruntime-ep-nv-tensorrt-rtx-cu13"
        ) from error
