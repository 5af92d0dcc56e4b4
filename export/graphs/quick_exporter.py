"""torch's ONNX exporter, without what it does again for every graph, or in vain.

- It makes its registry of operators anew for each graph, which takes 0.4 s of CPU.
- It traces every graph a second time, to decompose operators that ONNX has none of, whether or not there are any. That takes
  twice as long as the first time. foveal's own layers are made of operators that torch translates as they are.
- It runs every graph once more, to convert operands of mixed types, whether or not there are any.

`savings` leaves these out where they change nothing, so that graphs are the same but for the names of values in them. What it
replaces is private to torch: a version that lacks it exports as before, and takes longer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any
from unittest import mock

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg
from torch.onnx._internal.exporter import _fx_passes, _registration
from torch.onnx._internal.fx import type_utils
from torch.onnx._internal.fx.passes import type_promotion
from torch.utils._pytree import tree_leaves

_LOCK = threading.RLock()
_registries: dict[int, Any] = {}

# The exporter removes them after it has decomposed.
_CHECKS = {torch.ops.aten._assert_scalar.default, torch.ops.aten._assert_tensor_metadata.default}

_RESTATED = {
    torch.ops.aten.__and__.Tensor: torch.ops.aten.bitwise_and.Tensor,
    torch.ops.aten.__or__.Tensor: torch.ops.aten.bitwise_or.Tensor,
}


@contextmanager
def savings() -> Iterator[None]:
    """Let torch's exporter do nothing twice, in this block; one thread at a time."""
    replaced = (
        (getattr(_registration, "ONNXRegistry", None), "from_torchlib", _made_once),
        (_fx_passes, "decompose_with_registry", _where_needed),
        (_fx_passes, "insert_type_promotion_nodes", _where_types_differ),
    )
    with _LOCK, ExitStack() as patches:
        for owner, name, saving in replaced:
            original = getattr(owner, name, None)
            if original is not None:
                patches.enter_context(mock.patch.object(owner, name, saving(original)))
        yield


def _made_once(original: Callable[..., Any]) -> Any:
    def registry(opset_version: int) -> Any:
        if opset_version not in _registries:
            _registries[opset_version] = original(opset_version=opset_version)
        return _registries[opset_version]

    return staticmethod(registry)


def _where_needed(original: Callable[..., ExportedProgram]) -> Callable[..., ExportedProgram]:
    @wraps(original)
    def decompose(exported_program: ExportedProgram, registry: Any) -> ExportedProgram:
        for node in list(exported_program.graph.nodes):
            _restate(node)
        if all(_translated(node, registry) for node in exported_program.graph.nodes):
            return exported_program
        return original(exported_program, registry)

    return decompose


def _restate(node: Node) -> None:
    """Give a node the operator that torch would decompose it to, where that is one operator."""
    if node.target in _RESTATED:
        node.target = _RESTATED[node.target]
    elif node.target is torch.ops.aten.square.default:
        node.target, node.args = torch.ops.aten.pow.Tensor_Scalar, (node.args[0], 2)
    elif node.target is torch.ops.aten.to.dtype and len(node.args) == 2 and not node.kwargs:
        tensor, dtype = node.args
        if tensor.meta["val"].dtype == dtype:
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


def _where_types_differ(original: Callable[[GraphModule], None]) -> Callable[[GraphModule], None]:
    @wraps(original)
    def promote(graph_module: GraphModule) -> None:
        rules = type_promotion.TypePromotionTable()
        if any(_promotes(node, rules) for node in graph_module.graph.nodes):
            original(graph_module)

    return promote


def _promotes(node: Node, rules: type_promotion.TypePromotionTable) -> bool:
    """Whether torch would convert an operand of a node."""
    rule = type_promotion.get_type_promotion_rule(node, rules)
    if rule is None:
        return False
    args, kwargs = map_arg((node.args, node.kwargs), lambda operand: operand.meta["val"])
    promoted = rule.preview_type_promotion(args, kwargs)
    wanted = [(args[place], dtype) for place, dtype in promoted.args_dtypes.items()]
    wanted += [(kwargs[name], dtype) for name, dtype in promoted.kwargs_dtypes.items()]
    return any(_dtype(leaf) != dtype for operand, dtype in wanted for leaf in tree_leaves(operand))


def _dtype(operand: Any) -> torch.dtype | None:
    if isinstance(operand, torch.Tensor):
        return operand.dtype
    return type_utils.from_scalar_type_to_torch_dtype(type(operand))
