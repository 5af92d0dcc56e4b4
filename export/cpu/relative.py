"""Let attention by relative position cost by the length used.

In the portable graph a layer of `models.layers.relative_attention` scores every row of its caches, and the table of distances
as well. Here both are read as far as any query of the call sees. Where queries and keys are the same rows, and only where they
are, ONNX Runtime's `GroupQueryAttention` appends to the caches and reads them in place, and what the distances score is its
`attention_bias`; where they are of different rates (trax' resampling), or a constant row stands before the cache, the rows
used are copied out of it (docs/adr/0003 has the measurements).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ..graphs.nodes import Attributes, constant, insert_before, replace_value
from .attention import KERNEL_STEP
from .counters import counter


@dataclass(frozen=True)
class Steps:
    """How far key j is from query i: `keys * j - queries * i`, at most `ahead` where it is seen."""

    queries: int
    keys: int
    ahead: int


@dataclass(frozen=True)
class RelativeRead:
    """One attention by relative position, of which these nodes and values are changed.

    Attributes:
        steps: of its distances; `positions` are the queries' indices, int64 `[B or 1, L]`.
        by_table: the product of queries and table, and `gather`, what picks each key's distance out of it.
        table: `[H, Dh, n]`, the last n distances up to `ahead`.
        scores: the product of queries and keys, `contexted` its queries `[B, H, L, Dh]`, `turn` what transposes the keys.
        scale: that all scores are multiplied by.
        hide: what hides keys that are not seen.
        found: the product with the values, and `merged`, `[B, L, H Dh]`, what is made of it.
    """

    steps: Steps
    positions: ir.Value
    by_table: ir.Node
    gather: ir.Node
    table: ir.Value
    scores: ir.Node
    contexted: ir.Node
    turn: ir.Node
    scale: float
    hide: ir.Node
    found: ir.Node
    merged: ir.Value

    @property
    def keys(self) -> ir.Value:
        """`[B, H, S, Dh]`, and `values` likewise."""
        return _of(self.turn.inputs[0])

    @property
    def values(self) -> ir.Value:
        return _of(self.found.inputs[1])

    @property
    def distances(self) -> int:
        """That the table has."""
        return int(np.asarray(self.table.const_value).shape[2])


class _OtherGraph(Exception):
    """These nodes are no attention by relative position, or not as foveal writes it."""


def find_reads(model: ir.Model) -> list[RelativeRead]:
    """The attentions by relative position of a stage graph, in dataflow order."""
    return list(_reads(model))


def _reads(model: ir.Model) -> Iterator[RelativeRead]:
    for node in model.graph:
        if node.op_type == "GatherElements":
            try:
                yield _read_around(node)
            except _OtherGraph:  # a gather of something else
                continue


def _read_around(gather: ir.Node) -> RelativeRead:
    """The attention whose distances this gathers."""
    by_table = _producer(gather.inputs[0], "MatMul")
    table = _of(by_table.inputs[1])
    if table.const_value is None or len(table.const_value.shape) != 3:
        raise _OtherGraph
    place = _producer(_producer(_producer(gather.inputs[1], "Expand").inputs[0], "Clip").inputs[0], "Add")
    distance = _of(place.inputs[0])
    both = _reader(gather.outputs[0], "Add")
    scores = _producer(both.inputs[0], "MatMul")
    scaled = _reader(both.outputs[0], "Mul")
    hide = _reader(scaled.outputs[0], "Where")
    beyond = _producer(hide.inputs[0], "Greater")
    if beyond.inputs[0] is not distance:
        raise _OtherGraph
    found = _reader(_reader(hide.outputs[0], "Softmax").outputs[0], "MatMul")
    merged = _reader(_reader(found.outputs[0], "Transpose").outputs[0], "Reshape").outputs[0]
    steps, positions = _steps(distance, int(_number(beyond.inputs[1])))
    return RelativeRead(
        steps=steps,
        positions=positions,
        by_table=by_table,
        gather=gather,
        table=table,
        scores=scores,
        contexted=_producer(scores.inputs[0], "Add"),
        turn=_producer(scores.inputs[1], "Transpose"),
        scale=_number(scaled.inputs[1]),
        hide=hide,
        found=found,
        merged=merged,
    )


def _steps(distance: ir.Value, ahead: int) -> tuple[Steps, ir.Value]:
    """Of `Unsqueeze(keys * arange - queries * Unsqueeze(positions))`."""
    difference = _producer(_producer(distance, "Unsqueeze").inputs[0], "Sub")
    numbers, key_step = _unscaled(difference.inputs[0])
    column, query_step = _unscaled(difference.inputs[1])
    _producer(numbers, "Range")
    return Steps(query_step, key_step, ahead), _of(_producer(column, "Unsqueeze").inputs[0])


def _unscaled(value: ir.Value | None) -> tuple[ir.Value, int]:
    """What is multiplied by a number, if it is, and the number."""
    node = _of(value).producer()
    if node is None or node.op_type != "Mul":
        return _of(value), 1
    return _of(node.inputs[0]), int(_number(node.inputs[1]))


class _Uses:
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
            last = _op(place, "Sub", [farthest, _integers(place, [1])], "keys_last")
            whole = _op(place, "Div", [last, _integers(place, [steps.keys])], "keys_whole")
            self._made[shared] = _op(place, "Add", [whole, _integers(place, [1])], "keys_used")
        return self._made[shared]

    def farthest(self, read: RelativeRead) -> ir.Value:
        """How many distances any query sees, int64 `[1]`."""
        place, steps = read.by_table, read.steps
        shared = ("distances", read.positions, steps.queries, steps.ahead)
        if shared not in self._made:
            newest = _op(place, "ReduceMax", [read.positions], "newest", {"keepdims": 0})
            newest = _op(place, "Reshape", [newest, _integers(place, [1])], "newest_row")
            if steps.queries > 1:
                newest = _op(place, "Mul", [newest, _integers(place, [steps.queries])], "newest_place")
            self._made[shared] = _op(place, "Add", [newest, _integers(place, [steps.ahead + 1])], "distances_used")
        return self._made[shared]

    def distance(self, read: RelativeRead) -> ir.Value:
        """Of each key used from each query, int64 `[B or 1, 1, L, T]`."""
        place, steps = read.by_table, read.steps
        shared = ("distance", read.positions, steps)
        if shared not in self._made:
            count = _op(place, "Squeeze", [self.keys(read)], "keys_count")
            keys = _op(place, "Range", [_integer(place, 0), count, _integer(place, 1)], "key_numbers")
            if steps.keys > 1:
                keys = _op(place, "Mul", [keys, _integer(place, steps.keys)], "key_places")
            queries = _op(place, "Unsqueeze", [read.positions, _integers(place, [1, 3])], "query_numbers")
            if steps.queries > 1:
                queries = _op(place, "Mul", [queries, _integer(place, steps.queries)], "query_places")
            self._made[shared] = _op(place, "Sub", [keys, queries], "key_distances")
        return self._made[shared]

    def hidden(self, read: RelativeRead) -> ir.Value:
        """Which of these keys a query does not see, bool."""
        shared = ("hidden", read.positions, read.steps)
        if shared not in self._made:
            beyond = [self.distance(read), _integer(read.by_table, read.steps.ahead)]
            self._made[shared] = _op(read.by_table, "Greater", beyond, "keys_hidden")
        return self._made[shared]

    def is_most(self, read: RelativeRead) -> ir.Value:
        """Whether a call sees more than half of the table, so that reading all of it costs less than a copy, bool `[1]`."""
        place, shared = read.by_table, ("most", read.positions, read.steps, read.distances)
        if shared not in self._made:
            half = _integers(place, [read.distances // 2])
            self._made[shared] = _op(place, "Greater", [self.farthest(read), half], "table_most")
        return self._made[shared]

    def first_column(self, read: RelativeRead) -> ir.Value:
        """Where the distances that are seen begin, counted from the end of the table, int64 `[1]`."""
        shared = ("first", read.positions, read.steps.queries, read.steps.ahead)
        if shared not in self._made:
            self._made[shared] = _op(read.by_table, "Neg", [self.farthest(read)], "first_column")
        return self._made[shared]

    def place(self, read: RelativeRead) -> ir.Value:
        """Where the distance of each key stands among the columns of the product, int64 `[B or 1, H, L, T]`."""
        place, steps, n = read.by_table, read.steps, read.distances
        heads = int(np.asarray(read.table.const_value).shape[0])
        shared = ("place", read.positions, steps, n, heads)
        if shared not in self._made:
            columns = _op(place, "Where", [self.is_most(read), _integers(place, [n]), self.farthest(read)], "columns")
            last = _op(place, "Sub", [columns, _integers(place, [1])], "last_column")
            newest = _op(place, "Sub", [last, _integers(place, [steps.ahead])], "own_column")
            places = _op(place, "Add", [self.distance(read), newest], "all_columns")
            places = _op(place, "Max", [_op(place, "Min", [places, last], "some_columns"), _integers(place, [0])], "columns_seen")
            self._made[shared] = _op(place, "Expand", [places, _integers(place, [1, heads, 1, 1])], "columns_of_heads")
        return self._made[shared]


def lower_relative_attention(model: ir.Model) -> bool:
    """Read keys, values and tables of all attentions by relative position as far as they are used.

    Returns:
        Whether any is the kernel's, which behind a past takes several rows of a single sequence only.
    """
    uses, has_kernel = _Uses(), False
    for read in find_reads(model):
        _read_distances(read, uses)
        if own := _own_rows(read):
            _attend_in_place(model, read, own)
            has_kernel = True
        else:
            _attend_to_used(read, uses)
    return has_kernel


def _read_distances(read: RelativeRead, uses: _Uses) -> None:
    """Score those distances of the table that are seen, and gather from these."""
    place = read.by_table
    located, table = _of(place.inputs[0]), read.table
    seen = [table, uses.first_column(read), _integers(place, [read.distances]), _integers(place, [2])]
    cut = ir.Node("", "Slice", seen, name=f"{place.name}/distances_seen")
    few = ir.Node("", "MatMul", [located, cut.outputs[0]], name=f"{place.name}/few")
    all_of_it = ir.Node("", "MatMul", [located, table], name=f"{place.name}/all")
    for node in (cut, few, all_of_it):
        node.outputs[0].name = f"{node.name}_out"
    branches = {"then_branch": [all_of_it], "else_branch": [cut, few]}
    choice = ir.Node(
        *("", "If", [uses.is_most(read)]),
        attributes=[
            ir.AttrGraph(name, ir.Graph([], nodes[-1].outputs, nodes=nodes, name=f"{place.name}/{name}"))
            for name, nodes in branches.items()
        ],
        name=f"{place.name}/by_distance",
    )
    choice.outputs[0].name = f"{choice.name}_out"
    graph = place.graph
    assert isinstance(graph, ir.Graph)
    graph.insert_before(place, choice)
    read.gather.replace_input_with(0, choice.outputs[0])
    read.gather.replace_input_with(1, uses.place(read))


@dataclass(frozen=True)
class OwnRows:
    """What a layer projects of the rows that it attends from and to.

    Attributes:
        query: `[B, L, H Dh]` before the biases, and `key_value`, `[B, L, 2 H Dh]`.
        write_key: what writes the keys, and `write_value`.
    """

    query: ir.Value
    key_value: ir.Value
    write_key: ir.Node
    write_value: ir.Node


def _own_rows(read: RelativeRead) -> OwnRows | None:
    """Of a layer that the kernel can take: queries and keys are the same rows, in caches that nothing else reads."""
    try:
        write_key, write_value = (_producer(value, "WriteRows") for value in (read.keys, read.values))
        key_value, from_value = (_projected(write.inputs[1]) for write in (write_key, write_value))
        heads = _producer(_producer(read.contexted.inputs[0], "Transpose").inputs[0], "Reshape")
    except _OtherGraph:
        return None
    are_own = read.steps == Steps(1, 1, 0) and key_value is from_value
    are_alone = all(len(list(value.uses())) == 1 for value in (read.keys, read.values))
    width = int(np.asarray(read.table.const_value).shape[1])
    is_float = _of(write_key.inputs[0]).dtype == ir.DataType.FLOAT
    if not (are_own and are_alone and is_float) or width % KERNEL_STEP:
        return None
    return OwnRows(_of(heads.inputs[0]), key_value, write_key, write_value)


def _projected(rows: ir.Value | None) -> ir.Value:
    """The projection that these rows `[B, H, L, Dh]` of keys or of values are a half of."""
    half = _producer(_producer(rows, "Squeeze").inputs[0], "Slice")
    turned = _producer(half.inputs[0], "Transpose")
    if list(turned.attributes["perm"].as_ints()) != [2, 0, 3, 1, 4]:
        raise _OtherGraph
    return _of(_producer(turned.inputs[0], "Reshape").inputs[0])


def _attend_in_place(model: ir.Model, read: RelativeRead, own: OwnRows) -> None:
    """Append the rows and attend by the kernel, to whose scores those of the distances are added."""
    place, name = read.found, read.found.name
    heads = int(np.asarray(read.table.const_value).shape[0])
    context = np.asarray(_of(read.contexted.inputs[1]).const_value).reshape(-1)
    query = _op(place, "Add", [own.query, constant(place, f"{name}/context", context)], "query")
    key, value = insert_before(place, "Split", [own.key_value], f"{name}/key_value", {"axis": -1, "num_outputs": 2}, outputs=2)
    bias = _op(place, "Mul", [read.gather.outputs[0], constant(place, f"{name}/scale", np.float32(read.scale))], "bias")
    past = [own.write_key.inputs[0], own.write_value.inputs[0]]
    given = [query, key, value, *past, counter(model, "last_row"), counter(model, "total"), None, None, None, bias]
    sizes: Attributes = {"num_heads": heads, "kv_num_heads": heads, "scale": read.scale}
    y, *present = insert_before(place, "GroupQueryAttention", given, f"{name}/attention", sizes, domain="com.microsoft", outputs=3)
    model.opset_imports["com.microsoft"] = 1
    replace_value(read.merged, y)
    for written, appended in zip((read.keys, read.values), present, strict=True):
        replace_value(written, appended)


def _attend_to_used(read: RelativeRead, uses: _Uses) -> None:
    """Cut keys and values to those that are seen."""
    used = uses.keys(read)
    read.turn.replace_input_with(0, _first_rows(read.turn, read.keys, used))
    read.found.replace_input_with(1, _first_rows(read.found, read.values, used))
    read.hide.replace_input_with(0, uses.hidden(read))


def _first_rows(place: ir.Node, rows: ir.Value, count: ir.Value) -> ir.Value:
    """So many of `[B, H, S, Dh]`; of a constant row before a cache and that cache, one less of the cache."""
    before = rows.producer()
    if before is not None and before.op_type == "Concat":
        of_cache = _op(place, "Sub", [count, _integers(place, [1])], "rows_of_cache")
        cut = _op(place, "Slice", [before.inputs[1], *_span(place, of_cache)], "rows_seen")
        return _op(place, "Concat", [before.inputs[0], cut], "all_rows_seen", {"axis": 2})
    return _op(place, "Slice", [rows, *_span(place, count)], "rows_seen")


def _span(place: ir.Node, count: ir.Value) -> Sequence[ir.Value]:
    """Start, end and axis of the first so many rows."""
    return _integers(place, [0]), count, _integers(place, [2])


def _op(
    place: ir.Node, op: str, inputs: Sequence[ir.Value | None], name: str, attributes: Attributes | None = None
) -> ir.Value:
    """A node before `place`, and what it gives."""
    return insert_before(place, op, inputs, f"{place.name}/{name}", attributes)[0]


def _integers(place: ir.Node, numbers: Sequence[int]) -> ir.Value:
    """An int64 constant of the graph, made once."""
    return _constant(place, np.array(numbers, np.int64))


def _integer(place: ir.Node, number: int) -> ir.Value:
    return _constant(place, np.array(number, np.int64))


def _constant(place: ir.Node, numbers: np.ndarray) -> ir.Value:
    graph, name = place.graph, "relative/" + "x".join(map(str, numbers.shape)) + "_" + "_".join(map(str, numbers.flat))
    assert isinstance(graph, ir.Graph)
    return graph.initializers[name] if name in graph.initializers else constant(place, name, numbers)


def _of(value: ir.Value | None) -> ir.Value:
    if value is None:
        raise _OtherGraph
    return value


def _producer(value: ir.Value | None, op: str) -> ir.Node:
    """What gives a value, if it is such a node."""
    node = _of(value).producer()
    if node is None or node.op_type != op:
        raise _OtherGraph
    return node


def _reader(value: ir.Value, op: str) -> ir.Node:
    """What alone reads a value, if it is such a node."""
    readers = [node for node, _ in value.uses()]
    if len(readers) != 1 or readers[0].op_type != op:
        raise _OtherGraph
    return readers[0]


def _number(value: ir.Value | None) -> float:
    """The only number of a constant."""
    if value is None or value.const_value is None:
        raise _OtherGraph
    return float(np.asarray(value.const_value).item())
