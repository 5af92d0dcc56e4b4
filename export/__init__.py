"""Models to stages, stages to ONNX graphs, graphs to engines. Needs the `export` extra (torch, onnx)."""

from ..errors import BackendUnavailable

try:
    import onnx_ir as _onnx_ir  # noqa: F401
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise BackendUnavailable(f"{error.name} can't be imported; exporting needs it: pip install 'foveal[export]'") from error

from .building import build
from .conversion import convert, convert_model
from .planning import PlanReport, plan_precision
from .verification import VerifyReport, verify

__all__ = ["PlanReport", "VerifyReport", "build", "convert", "convert_model", "plan_precision", "verify"]
