"""What TensorRT-RTX itself says of an engine, by its first bytes; worth something only where there is a GPU."""

from __future__ import annotations

from pathlib import Path

from ..engines.tensorrt_library import Library
from .engine_files import build_command
from .findings import Finding

# What building again would not mend, in the order in which to mend it (docs/engines.md, 9).
_MEND = {
    "CUDA_ERROR": "restart the machine or reinstall the driver",
    "OLD_CUDA_DRIVER": "update the driver",
    "OLD_CUDA_RUNTIME": "update the CUDA runtime",
    "INSUFFICIENT_GPU_MEMORY": "free memory of the GPU",
}


def ask_library(library: Library, bundle: Path, engine: str) -> Finding | None:
    """The library's objection to an engine; None: it has none.

    Args:
        library: TensorRT-RTX.
        bundle: the bundle's directory.
        engine: the engine's path in it; only the header is read, and nothing is deserialised.
    """
    runtime = library.module.Runtime(library.logger)
    with (bundle / engine).open("rb") as file:
        header = file.read(runtime.engine_header_size)
    validity, diagnostics = runtime.get_engine_validity(header)
    if validity == library.module.EngineValidity.VALID:
        return None
    if validity == library.module.EngineValidity.SUBOPTIMAL:
        text = f"{library} runs it, and says that it will be slower than one of a later version"
        return Finding("match", "library's own check", text)
    flags = library.module.EngineInvalidityDiagnostics.__members__
    reasons = [name for name, flag in flags.items() if diagnostics & int(flag)]
    said = ", ".join(name.lower().replace("_", " ") for name in reasons) or "no reason given"
    text = f"{library} says that {engine} is invalid here ({said})"
    for name, mend in _MEND.items():
        if name in reasons:
            return Finding("refuse", "library's own check", f"{text}; {mend}")
    return Finding("rebuild", "library's own check", f"{text}; run {build_command(bundle, 'tensorrt-rtx')}")
