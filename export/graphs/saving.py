"""Stage graphs to files."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from ...errors import ExportError, reason_of
from ...storage import innermost


def save_graph(model: ir.Model, path: Path) -> int:
    """Save a model with its weights in `<path>.data`, which readers may map into memory; return the bytes of the weights."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        ir.save(model, path, external_data=f"{path.name}.data")
    except OSError:
        raise
    except Exception as error:  # onnx-ir wraps what protobuf raises, and also what the disk refuses
        cause = innermost(error)
        if isinstance(cause, OSError):
            raise cause from error
        raise ExportError(f"the graph of {path.name} can't be written: {reason_of(cause)}; report it") from error
    return sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)
