"""A table of distances in blocks, of which a product takes as many as it needs.

A product with a part of a tensor needs a copy of the part, which takes as long as three products.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

SHORTEST_BLOCK = 512
"""Distances that are scored at least."""


def ends_of(distances: int) -> list[int]:
    """How many of the nearest distances the first block of a table has, the first two, and so on: each time twice as many."""
    ends = [min(SHORTEST_BLOCK, distances)]
    while ends[-1] < distances:
        ends.append(min(2 * ends[-1], distances))
    return ends


@dataclass(frozen=True)
class Product:
    """Queries times as many blocks of a table as hold the distances that are seen.

    Attributes:
        located: the queries `[B, H, L, Dh]`, and `seen` how many distances count, int64 `[1]`.
        blocks: `[H, Dh, n]`, the nearest first; `ends` are how many distances each has, all before it included.
    """

    name: str
    located: ir.Value
    blocks: Sequence[ir.Value]
    ends: Sequence[int]
    seen: ir.Value

    def nodes(self) -> list[ir.Node]:
        """The last gives the scores `[B, H, L, n]`, the nearest distance last. One block, as is usual, takes one choice."""
        last = len(self.blocks) - 1
        return self._one_of(0, last) if last < 1 else self._choice(0, 0, last)

    def _one_of(self, first: int, last: int) -> list[ir.Node]:
        """With so many blocks or more, up to so many."""
        return self._some(last) if first == last else self._choice(first, (first + last) // 2, last)

    def _choice(self, first: int, middle: int, last: int) -> list[ir.Node]:
        """Up to the middle one where that has all that is seen, else with more."""
        name = f"{self.name}/{first}_{last}"
        end = ir.tensor(np.array(self.ends[middle], np.int64), name=f"{name}/end")
        limit = new_node("Constant", [], f"{name}/limit", [ir.AttrTensor("value", end)])
        is_more = new_node("Greater", [self.seen, limit.outputs[0]], f"{name}/is_more")
        branches = {"then_branch": self._one_of(middle + 1, last), "else_branch": self._one_of(first, middle)}
        return [limit, is_more, new_node("If", [is_more.outputs[0]], f"{name}/distances", branches_of(name, branches))]

    def _some(self, last: int) -> list[ir.Node]:
        """With all blocks up to this one."""
        name = f"{self.name}/{last}"
        parts = [
            new_node("MatMul", [self.located, self.blocks[index]], f"{name}/block_{index}") for index in range(last, -1, -1)
        ]
        if len(parts) == 1:
            return parts
        return [*parts, new_node("Concat", [part.outputs[0] for part in parts], f"{name}/blocks", [ir.AttrInt64("axis", 3)])]


def new_node(op: str, inputs: Sequence[ir.Value], name: str, attributes: Sequence[ir.Attr] = ()) -> ir.Node:
    """A node of no graph yet."""
    node = ir.Node("", op, inputs, attributes=attributes, name=name)
    node.outputs[0].name = f"{name}_out"
    return node


def branches_of(name: str, branches: Mapping[str, Sequence[ir.Node]]) -> list[ir.Attr]:
    """Of an `If`; each gives what its last node gives."""
    return [
        ir.AttrGraph(branch, ir.Graph([], nodes[-1].outputs, nodes=nodes, name=f"{name}/{branch}"))
        for branch, nodes in branches.items()
    ]
