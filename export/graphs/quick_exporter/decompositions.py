"""The second trace of a graph, which decomposes operators that torch does not translate: it takes twice as long as the first.

foveal's own layers have none of these but casts, squares and bit operators, each of which another operator replaces.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node

_CHECKS = {torch.ops.aten._assert_scalar.default, torch.ops.aten._assert_tensor_metadata.default}
"""What the exporter removes after it has decomposed."""

_SAME = {
    torch.ops.aten.__and__.Tensor: torch.ops.aten.bitwise_and.Tensor,
    torch.ops.aten.__or__.Tensor: torch.ops.aten.bitwise_or.Tensor,
}


def where_needed(original: Callable[..., ExportedProgram]) -> Callable[..., ExportedProgram]:
    """`decompose_with_registry`, for graphs that have something to decompose."""

    @wraps(original)
    def decompose(exported_program: ExportedProgram, registry: Any) -> ExportedProgram:
        for node in list(exported_program.graph.nodes):
            _replace(node)
        if all(_translated(node, registry) for node in exported_program.graph.nodes):
            return exported_program
        return original(exported_program, registry)

    return decompose


def _replace(node: Node) -> None:
    """Give a node the operator that torch would decompose it to, where that is one operator."""
    if node.target in _SAME:
        node.target = _SAME[node.target]
    elif node.target is torch.ops.aten.square.default:
        node.target, node.args = torch.ops.aten.pow.Tensor_Scalar, (node.args[0], 2)
    elif node.target is torch.ops.aten.to.dtype and len(node.args) == 2 and not node.kwargs:
        _replace_cast(node)


def _replace_cast(node: Node) -> None:
    tensor, dtype = node.args
    if isinstance(tensor, Node) and tensor.meta["val"].dtype == dtype:
        node.replace_all_uses_with(tensor)
        node.graph.erase_node(node)
    else:
        node.target, node.args, node.kwargs = torch.ops.aten._to_copy.default, (tensor,), {"dtype": dtype}


def _translated(node: Node, registry: Any) -> bool:
    """Whether the exporter translates a node as it is: of an operator that it knows and that writes into no argument."""
    if node.op != "call_function" or node.target in _CHECKS:
        return True
    if not registry.is_registered(node.target):
        return False
    return not (isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable)
