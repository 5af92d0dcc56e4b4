"""A stage graph in another dialect, without the model it was exported from.

All that differs between dialects is in the bodies of `foveal::CachedAttention` and `foveal::WriteRows`. Everything else, the
bodies of `Shorten` and `Lengthen` included, is in ops whose meaning is the same in every opset that has them: there the imports
change, and no node.
Needs no torch: a bundle that was copied to a Jetson is rewritten there, for the parser it has.
"""

from __future__ import annotations

from itertools import chain

import onnx
import onnx_ir as ir

from ...calibration.products import cached_attentions
from ...errors import ExportError
from .attentions import given_attributes
from .dialect import DIALECTS, Dialect
from .functions import MASK
from .nodes import set_opset


def change_dialect(model: ir.Model, dialect: Dialect) -> None:
    """Express a stage graph, in place, in `dialect`; same inputs, outputs and weights, and the same meaning.

    Args:
        model: a portable stage graph of any dialect and precision; the body of `CachedAttention` may be missing.
        dialect: the one to express it in.

    Raises:
        ExportError: the dialect's opset lacks an op of the graph, or an attribute.
    """
    change_state_ops(model, dialect, dialect.int4_opset if _holds_int4(model) else dialect.opset)
    _refuse_newer(model, dialect, model.opset_imports[""])


def change_state_ops(model: ir.Model, dialect: Dialect, opset: int) -> None:
    """Give what changes state the bodies that a dialect has for it, in an opset of its own or a later one."""
    attentions = cached_attentions(model)
    if attentions:
        mask = attentions[0].inputs[MASK]  # alike for all attentions of a stage
        is_bool = mask is not None and mask.dtype == ir.DataType.BOOL
        _define(model, dialect.cached_attention(opset, "bool" if is_bool else "added", given_attributes(model)))
    if any(node.op_type == "WriteRows" for node in model.graph):
        _define(model, dialect.write_rows(opset))
    set_opset(model, opset)


def _define(model: ir.Model, body: onnx.FunctionProto) -> None:
    function = ir.serde.deserialize_function(body)
    model.functions[function.identifier()] = function


def _holds_int4(model: ir.Model) -> bool:
    return any(value.dtype == ir.DataType.INT4 for value in model.graph.initializers.values())


def _refuse_newer(model: ir.Model, dialect: Dialect, opset: int) -> None:
    functions = (function.all_nodes() for function in model.functions.values())
    for node in chain(model.graph.all_nodes(), *functions):
        if node.domain == "" and (newer := _newer(node, opset)):
            others = ", ".join(name for name in DIALECTS if name != dialect.name)
            raise ExportError(
                f'{newer}, in {node.name}, is not in opset {opset}, which the dialect "{dialect.name}" is written in; '
                f"keep the graph in another dialect: {others}"
            )


def _newer(node: ir.Node, opset: int) -> str:
    """The op, or those of its attributes, that an opset lacks; empty if it has them."""
    try:
        known = onnx.defs.get_schema(node.op_type, opset, "").attributes
    except (onnx.defs.SchemaError, TypeError):  # the graph names no opset, or no op
        return node.op_type or "a node without an op"
    unknown = ", ".join(name for name in node.attributes if name not in known)
    return unknown and f"{node.op_type}'s {unknown}"
