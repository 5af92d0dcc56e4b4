"""How much of its caches and tables a call reads: nodes that all attentions of the same distances share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ..graphs.nodes import Attributes, constant, insert_before
from .relative_reads import RelativeRead, shape_of


class Uses:
    """How much is read in a call: values that all attentions of the same distances share."""

    def __init__(self) -> None:
        self._made: dict[tuple[object, ...], ir.Value] = {}

    def keys(self, read: RelativeRead) -> ir.Value:
        """How many keys any query sees, int64 `[1]`."""
        place, steps, farthest = read.by_table, read.steps, self.farthest(read)
        if steps.keys == 1:
            return farthest
        shared = ("keys", read.positions, steps)
        if shared not in self._made:
            last = add_op(place, "Sub", [farthest, integers(place, [1])], "keys_last")
            whole = add_op(place, "Div", [last, integers(place, [steps.keys])], "keys_whole")
            self._made[shared] = add_op(place, "Add", [whole, integers(place, [1])], "keys_used")
        return self._made[shared]

    def farthest(self, read: RelativeRead) -> ir.Value:
        """How many distances any query sees, int64 `[1]`."""
        place, steps = read.by_table, read.steps
        shared = ("distances", read.positions, steps.queries, steps.ahead)
        if shared not in self._made:
            newest = add_op(place, "ReduceMax", [read.positions], "newest", {"keepdims": 0})
            newest = add_op(place, "Reshape", [newest, integers(place, [1])], "newest_row")
            if steps.queries > 1:
                newest = add_op(place, "Mul", [newest, integers(place, [steps.queries])], "newest_place")
            self._made[shared] = add_op(place, "Add", [newest, integers(place, [steps.ahead + 1])], "distances_used")
        return self._made[shared]

    def distance(self, read: RelativeRead, keys_read: ir.Value) -> ir.Value:
        """Of so many keys from each query, int64 `[B or 1, 1, L, T]`."""
        place, steps = read.by_table, read.steps
        shared = ("distance", read.positions, steps, keys_read)
        if shared not in self._made:
            count = add_op(place, "Squeeze", [keys_read], "keys_count")
            keys = add_op(place, "Range", [integer(place, 0), count, integer(place, 1)], "key_numbers")
            if steps.keys > 1:
                keys = add_op(place, "Mul", [keys, integer(place, steps.keys)], "key_places")
            queries = add_op(place, "Unsqueeze", [read.positions, integers(place, [1, 3])], "query_numbers")
            if steps.queries > 1:
                queries = add_op(place, "Mul", [queries, integer(place, steps.queries)], "query_places")
            self._made[shared] = add_op(place, "Sub", [keys, queries], "key_distances")
        return self._made[shared]

    def place(self, read: RelativeRead, keys_read: ir.Value, product: ir.Value) -> ir.Value:
        """Where the distance of each key stands among the columns of the product, int64 `[B or 1, H, L, T]`."""
        place, steps = read.by_table, read.steps
        heads, _, distances = shape_of(read.table)
        shared = ("place", read.positions, steps, keys_read, heads, distances)
        if shared not in self._made:
            columns = add_op(place, "Shape", [product], "columns", {"start": 3, "end": 4})
            last = add_op(place, "Sub", [columns, integers(place, [1])], "last_column")
            own = add_op(place, "Sub", [columns, integers(place, [1 + steps.ahead])], "own_column")
            places = add_op(place, "Add", [self.distance(read, keys_read), own], "all_columns")
            places = add_op(
                place, "Max", [add_op(place, "Min", [places, last], "some_columns"), integers(place, [0])], "columns_seen"
            )
            self._made[shared] = add_op(place, "Expand", [places, integers(place, [1, heads, 1, 1])], "columns_of_heads")
        return self._made[shared]


def add_op(
    place: ir.Node, op: str, inputs: Sequence[ir.Value | None], name: str, attributes: Attributes | None = None
) -> ir.Value:
    """A node before `place`, and what it gives."""
    return insert_before(place, op, inputs, f"{place.name}/{name}", attributes)[0]


def integers(place: ir.Node, numbers: Sequence[int]) -> ir.Value:
    """An int64 constant of the graph, made once."""
    return _constant(place, np.array(numbers, np.int64))


def integer(place: ir.Node, number: int) -> ir.Value:
    return _constant(place, np.array(number, np.int64))


def _constant(place: ir.Node, numbers: np.ndarray) -> ir.Value:
    graph, name = graph_of(place), "relative/" + "_".join(map(str, (*numbers.shape, "of", *numbers.flat)))
    return graph.initializers[name] if name in graph.initializers else constant(place, name, numbers)


def graph_of(place: ir.Node) -> ir.Graph:
    graph = place.graph
    assert isinstance(graph, ir.Graph)  # the nodes of reads are the stage's own
    return graph
