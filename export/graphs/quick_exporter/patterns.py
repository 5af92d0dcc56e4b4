"""The optimiser's patterns, each of which onnxscript tries at every node, though most end in another operator.

A pattern with two ends is even tried with all pairs of nodes: a graph of 500 nodes is then mostly this.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any


def where_operators_agree(original: Callable[..., Any]) -> Callable[..., Any]:
    """`SimplePatternMatcher.match`, for nodes of the operator that the pattern ends in."""
    from onnxscript.rewriter._basics import MatchResult

    @wraps(original)
    def match(self: Any, model: Any, graph: Any, node: Any, **settings: Any) -> Any:
        wanted = self.pattern.output_nodes[0].op_identifier()
        if wanted is not None and wanted != node.op_identifier():
            return MatchResult().fail("another operator")
        return original(self, model, graph, node, **settings)

    return match
