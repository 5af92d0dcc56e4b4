"""foveal: hierarchical language models, exported per scale and run so that coarse stages fire only every k tokens.

    import foveal

    foveal.convert("checkpoint", "model.bundle", target="cpu", precision="fp32")
    model = foveal.load("model.bundle")
    for piece in model.generate("It was", max_new_tokens=64, temperature=0.8, seed=1):
        print(piece, end="")

Nothing heavy is imported until it is used: `convert` needs torch and onnx (the `export` extra), `load` one engine library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import (
    BackendUnavailable,
    BuildError,
    BundleError,
    CalibrationError,
    CapacityError,
    CheckpointError,
    ConfigError,
    EngineMismatchError,
    EquivalenceError,
    ExportError,
    FovealError,
    FovealWarning,
    HubError,
    InputError,
    QueueFullError,
    ServiceClosedError,
    SessionBusyError,
    SessionLostError,
    StorageError,
)

if TYPE_CHECKING:
    from .bundle import Bundle, open_bundle
    from .calibration import CalibrationSettings, Quality, calibrate, evaluate, probe
    from .export import EngineOptions, build, convert, plan_precision
    from .hierarchy import Hierarchy
    from .precision import Plan
    from .runtime import (
        Batch,
        Constraint,
        Model,
        SamplingParams,
        Score,
        Sequence,
        Session,
        SessionStore,
        Snapshot,
        load,
        score,
        share_threads,
    )
    from .runtime.service.service import Service

__version__ = "0.1.0"

_LAZY = {
    "Batch": ".runtime",
    "Bundle": ".bundle",
    "CalibrationSettings": ".calibration",
    "Constraint": ".runtime",
    "EngineOptions": ".export",
    "Hierarchy": ".hierarchy",
    "Model": ".runtime",
    "Plan": ".precision",
    "Quality": ".calibration",
    "SamplingParams": ".runtime",
    "Score": ".runtime",
    "Sequence": ".runtime",
    "Service": ".runtime.service.service",
    "Session": ".runtime",
    "SessionStore": ".runtime",
    "Snapshot": ".runtime",
    "build": ".export",
    "calibrate": ".calibration",
    "convert": ".export",
    "evaluate": ".calibration",
    "load": ".runtime",
    "open_bundle": ".bundle",
    "plan_precision": ".export",
    "probe": ".calibration",
    "score": ".runtime",
    "share_threads": ".runtime",
}

__all__ = [
    "BackendUnavailable",
    "BuildError",
    "Batch",
    "Bundle",
    "BundleError",
    "CalibrationError",
    "CalibrationSettings",
    "CapacityError",
    "CheckpointError",
    "ConfigError",
    "Constraint",
    "EngineMismatchError",
    "EngineOptions",
    "EquivalenceError",
    "ExportError",
    "FovealError",
    "FovealWarning",
    "Hierarchy",
    "HubError",
    "InputError",
    "Model",
    "Plan",
    "Quality",
    "QueueFullError",
    "SamplingParams",
    "Score",
    "Sequence",
    "Service",
    "ServiceClosedError",
    "Session",
    "SessionBusyError",
    "SessionLostError",
    "SessionStore",
    "Snapshot",
    "StorageError",
    "__version__",
    "build",
    "calibrate",
    "convert",
    "evaluate",
    "load",
    "open_bundle",
    "plan_precision",
    "probe",
    "score",
    "share_threads",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'foveal' has no attribute '{name}'")
    return getattr(import_module(_LAZY[name], __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
