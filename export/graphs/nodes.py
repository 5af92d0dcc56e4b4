"""Small edits of an ONNX graph in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

Attributes = Mapping[str, int | float | str | Sequence[int]]


def caches_of(model: ir.Model) -> list[ir.Value]:
    """The graph's inputs and outputs that are keys or values."""
    values = (*model.graph.inputs, *model.graph.outputs)
    return [value for value in values if (value.name or "").startswith(("past_key_values.", "present."))]


def set_opset(model: ir.Model, opset: int) -> None:
    """Declare a graph and the bodies of its functions to be of an opset of standard ONNX."""
    for imports in (model.opset_imports, *(function.opset_imports for function in model.functions.values())):
        imports[""] = opset


def constant(near: ir.Node, name: str, array: npt.ArrayLike, dtype: ir.DataType | None = None) -> ir.Value:
    """Add an initializer to the graph that `near` is in; `dtype` packs integers into fewer bits than numpy has."""
    graph = _graph(near)
    values = np.asarray(array, order="C")  # ascontiguousarray would make vectors of scalars
    tensor = ir.tensor(values if dtype is None else values.astype(dtype.numpy()), name=name)
    value = ir.Value(name=name, shape=ir.Shape(values.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.initializers[name] = value
    return value


def insert_before(
    place: ir.Node,
    op: str,
    inputs: Sequence[ir.Value | None],
    name: str,
    attributes: Attributes | None = None,
    *,
    domain: str = "",
    outputs: int = 1,
    dtype: ir.DataType | None = None,
) -> Sequence[ir.Value]:
    """Insert a node before `place`; its outputs are named after it."""
    node = ir.Node(
        domain, op, inputs, attributes=ir.convenience.convert_attributes(dict(attributes or {})), num_outputs=outputs, name=name
    )
    for index, value in enumerate(node.outputs):
        value.name = f"{name}_out{index or ''}"
        if dtype is not None:
            value.dtype = dtype
    _graph(place).insert_before(place, node)
    return node.outputs


def replace_value(old: ir.Value, new: ir.Value) -> None:
    """Make everything that reads `old`, the graph's outputs included, read `new`, which takes over name, type and shape."""
    graph = _graph(old.producer())
    new.name, new.shape, new.type = old.name, old.shape, old.type
    for node, index in list(old.uses()):
        node.replace_input_with(index, new)
    for index, output in enumerate(graph.outputs):
        if output is old:
            graph.outputs[index] = new
    old.name = f"{old.name}_replaced"


def _graph(node: ir.Node | None) -> ir.Graph:
    graph = None if node is None else node.graph
    if not isinstance(graph, ir.Graph):
        raise TypeError("expected a node in a graph")
    return graph
