"""The nodes of a stage's CPU graph, one after the other, to steps.

Every value of the graph is followed as what it is: rows of firings (`tensors.py`), an array, or one of `values.py`. A node that
nothing here knows ends it: the stage runs on ONNX Runtime, and `Unsupported` says which node it was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from . import arithmetic, attention, lookup, products, shapes
from .lowering import Lowering
from .tensors import Unsupported

_HANDLERS: dict[str, Callable[[Lowering, ir.Node], Any]] = {
    **shapes.HANDLERS,
    **arithmetic.HANDLERS,
    **lookup.HANDLERS,
    **products.HANDLERS,
    **attention.HANDLERS,
}


def lower_graph(model: ir.Model, lowering: Lowering) -> None:
    """Make steps of all of a graph; raises Unsupported."""
    InlinePass(lambda function: function.name != "CachedAttention")(model)
    lowering.read_inputs(model)
    for node in model.graph:
        handle = _HANDLERS.get(node.op_type)
        if handle is None:
            raise Unsupported(f"no step does {node.op_type} ({node.name})")
        try:
            result = handle(lowering, node)
        except Unsupported as error:
            raise Unsupported(f"{error} ({node.op_type} {node.name})") from error
        for value, found in zip(node.outputs, result if isinstance(result, tuple) else (result,), strict=False):
            lowering.values[value] = found
    output = lowering.rows(lowering.values[model.graph.outputs[0]])
    lowering.draft.output = output if output not in lowering.draft.inputs else lowering.copied(output)
