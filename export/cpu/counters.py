"""Let the host count: what a CPU engine has as inputs instead of working it out from `position` in a dozen small nodes.

    rows       int64 [B, L]   index of each of these firings, for position tables and rotations
    last_row   int32 [B]      index of the last of them
    total      int32 [1]      rows in the caches after them
    is_chunk   bool  []       whether there are more than a few

An engine has those of them that it reads, and `position` if it reads that. In a decode step everything around the matrix
products counts: the nodes saved were a tenth of a quantised stage's time.
"""

from __future__ import annotations

import onnx_ir as ir

_DTYPES = {
    "rows": (ir.DataType.INT64, ("B", "L")),
    "last_row": (ir.DataType.INT32, ("B",)),
    "total": (ir.DataType.INT32, (1,)),
    "is_chunk": (ir.DataType.BOOL, ()),
}


def counter(model: ir.Model, name: str) -> ir.Value:
    """The graph input of that name, which is added if there is none."""
    for value in model.graph.inputs:
        if value.name == name:
            return value
    dtype, shape = _DTYPES[name]
    value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
    model.graph.inputs.append(value)
    return value


def count_rows(model: ir.Model) -> None:
    """Replace every `position[:, None] + arange(L)` by `rows`, where what reads it are tables and rotations."""
    for node in [node for node in model.graph if node.op_type == "Add"]:
        if any(_is_position_column(value) for value in node.inputs) and any(_is_firing_range(value) for value in node.inputs):
            rows = counter(model, "rows")
            for reader, index in list(node.outputs[0].uses()):
                reader.replace_input_with(index, rows)


def drop_position(model: ir.Model) -> None:
    """Remove the input `position` if nothing reads it any more."""
    for value in list(model.graph.inputs):
        if value.name == "position" and not list(value.uses()):
            model.graph.inputs.remove(value)


def _is_firing_range(value: ir.Value | None) -> bool:
    """Whether a value is `arange(L)`, `[1, L]`: what a stage adds to its position may be something else, such as one number.

    The exporter may have another name for L, if it works it out of the rows of a window; a fixed size or a multiple it is not.
    """
    column = None if value is None else value.producer()
    numbers = column.inputs[0] if column is not None and column.op_type == "Unsqueeze" else None
    producer = None if numbers is None else numbers.producer()
    size = None if value is None or value.shape is None else value.shape[-1]
    is_whole = value is not None and not isinstance(size, int) and "*" not in str(size)
    return producer is not None and producer.op_type == "Range" and is_whole


def _is_position_column(value: ir.Value | None) -> bool:
    producer = None if value is None else value.producer()
    source = producer.inputs[0] if producer is not None and producer.op_type == "Unsqueeze" else None
    return source is not None and source.is_graph_input() and source.name == "position"
