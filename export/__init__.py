"""Models to stages, stages to ONNX graphs, graphs to engines.

Needs the `export` extra: onnx for all of it, torch for what starts from a model (`convert`, `convert_model`, `verify`). Nothing
is imported until it is used, so that a machine without torch can build engines from a bundle.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..errors import unavailable

if TYPE_CHECKING:
    from .building import build
    from .comparison.bisection import BisectReport, bisect
    from .comparison.compare_layers import compare_cuts
    from .comparison.compare_stages import CompareReport, compare
    from .comparison.verification import verify
    from .comparison.verify_report import VerifyReport
    from .conversion import convert, convert_model
    from .planning import PlanReport, plan_precision
    from .tensorrt.options import EngineOptions
    from .triton.repository import export_triton

_LAZY = {
    "BisectReport": ".comparison.bisection",
    "CompareReport": ".comparison.compare_stages",
    "EngineOptions": ".tensorrt.options",
    "PlanReport": ".planning",
    "VerifyReport": ".comparison.verify_report",
    "bisect": ".comparison.bisection",
    "build": ".building",
    "compare": ".comparison.compare_stages",
    "compare_cuts": ".comparison.compare_layers",
    "convert": ".conversion",
    "convert_model": ".conversion",
    "export_triton": ".triton.repository",
    "plan_precision": ".planning",
    "verify": ".comparison.verification",
}

__all__ = [
    "BisectReport",
    "CompareReport",
    "EngineOptions",
    "PlanReport",
    "VerifyReport",
    "bisect",
    "build",
    "compare",
    "compare_cuts",
    "convert",
    "convert_model",
    "export_triton",
    "plan_precision",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'foveal.export' has no attribute '{name}'")
    try:
        return getattr(import_module(_LAZY[name], __name__), name)
    except ImportError as error:
        if (found := unavailable(error, "exporting")) is None:
            raise
        raise found from error


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
