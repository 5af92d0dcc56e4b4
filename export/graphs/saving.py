"""Stage graphs to files."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir


def save_graph(model: ir.Model, path: Path) -> int:
    """Save a model with its weights in `<path>.data`, which readers may map into memory; return the bytes of the weights."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ir.save(model, path, external_data=f"{path.name}.data")
    return sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)
