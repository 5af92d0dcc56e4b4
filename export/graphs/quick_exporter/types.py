"""The conversion of operands of mixed types, for which torch runs every graph once more, whether or not there are any."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg
from torch.utils._pytree import tree_leaves


def where_types_differ(original: Callable[[GraphModule], None]) -> Callable[[GraphModule], None]:
    """`insert_type_promotion_nodes`, for graphs in which there is something to insert."""
    from torch.onnx._internal.fx.passes.type_promotion import TypePromotionTable
    from torch.onnx._internal.fx.type_utils import from_scalar_type_to_torch_dtype

    def dtype_of(operand: Any) -> torch.dtype | None:
        return operand.dtype if isinstance(operand, torch.Tensor) else from_scalar_type_to_torch_dtype(type(operand))

    @wraps(original)
    def promote(graph_module: GraphModule) -> None:
        rules = TypePromotionTable()
        if any(_promotes(node, rules, dtype_of) for node in graph_module.graph.nodes):
            original(graph_module)

    return promote


def _promotes(node: Node, rules: Any, dtype_of: Callable[[Any], torch.dtype | None]) -> bool:
    """Whether torch would convert an operand of a node."""
    rule = rules.get_rule(node.target.overloadpacket) if isinstance(node.target, torch._ops.OpOverload) else None
    if rule is None:
        return False
    args, kwargs = map_arg((node.args, node.kwargs), lambda operand: operand.meta["val"])
    promoted = rule.preview_type_promotion(args, kwargs)
    wanted = [(args[place], dtype) for place, dtype in promoted.args_dtypes.items()]
    wanted += [(kwargs[name], dtype) for name, dtype in promoted.kwargs_dtypes.items()]
    return any(dtype_of(leaf) != dtype for operand, dtype in wanted for leaf in tree_leaves(operand))
