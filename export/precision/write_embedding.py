"""Smaller tables of token and position vectors: fp16 rows, or 8-bit rows with a scale each."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..graphs.nodes import constant, insert_before, replace_value
from .quantise import by_column


def write_embedding(model: ir.Model, precision: str) -> None:
    """Shrink every table that rows are looked up in; `fp32` leaves them. Only rows that are looked up are widened again."""
    if precision == "fp32":
        return
    for node in [node for node in model.graph if _looks_up(node)]:
        table, ids = node.inputs
        if table is None or ids is None:
            continue
        weight, name = np.asarray(table.const_value), node.name or "Gather"
        if precision == "fp16":
            half = constant(node, f"{name}/table_fp16", weight.astype(np.float16))
            (rows,) = insert_before(node, "Gather", [half, ids], f"{name}/rows")
            (wide,) = insert_before(node, "Cast", [rows], f"{name}/fp32", {"to": ir.DataType.FLOAT})
        else:
            quantised = by_column(weight.T)
            # Unsigned, around 128: TensorRT takes signed 8-bit constants for quantised weights, and refuses to look up in them.
            values = constant(node, f"{name}/table_uint8", (quantised.values.T.astype(np.int16) + 128).astype(np.uint8))
            middle = constant(node, f"{name}/middle", np.float32(128))
            scales = constant(node, f"{name}/table_scale", quantised.scales[:, None])
            (rows,) = insert_before(node, "Gather", [values, ids], f"{name}/rows")
            (row_scales,) = insert_before(node, "Gather", [scales, ids], f"{name}/scales")
            (floats,) = insert_before(node, "Cast", [rows], f"{name}/fp32", {"to": ir.DataType.FLOAT})
            (centred,) = insert_before(node, "Sub", [floats, middle], f"{name}/centred")
            (wide,) = insert_before(node, "Mul", [centred, row_scales], f"{name}/scaled")
        replace_value(node.outputs[0], wide)
        model.graph.remove(node, safe=True)


def _looks_up(node: ir.Node) -> bool:
    table = node.inputs[0] if node.op_type == "Gather" else None
    return table is not None and table.is_initializer() and table.shape is not None and len(table.shape) == 2


def table_bytes(model: ir.Model) -> int:
    """Bytes of all tables that rows are looked up in, and that nothing else reads."""
    tables = {node.inputs[0] for node in model.graph if _looks_up(node)}
    return sum(
        table.const_value.nbytes
        for table in tables
        if table is not None and table.const_value is not None and all(_looks_up(reader) for reader in table.consumers())
    )
