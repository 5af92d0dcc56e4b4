"""Let attention by relative position cost by the length used.

In the portable graph a layer of `models.layers.relative_attention` scores every row of its caches, and the table of distances
as well. Here both are read as far as any query of the call sees. Where queries and keys are the same rows, and only where they
are, ONNX Runtime's `GroupQueryAttention` appends to the caches and reads them in place, and what the distances score is its
`attention_bias`; where they are of different rates (trax' resampling), or a constant row stands before the cache, the rows
used are copied out of it (docs/adr/0003 has the measurements).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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


class _OtherGraph(Exception):
    """These nodes are no attention by relative position, or not as foveal writes it."""


SHORTEST_BLOCK = 512
"""Distances that are scored at least. A table is kept in blocks, each as long as all before it: a product with a part of a
tensor needs a copy of it, which takes as long as three products."""


FEW_DISTANCES = 2048
"""Of a table for a context so short that a copy of all keys costs no more than the choice not to make it."""


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

    def distance(self, read: RelativeRead, keys_read: ir.Value) -> ir.Value:
        """Of so many keys from each query, int64 `[B or 1, 1, L, T]`."""
        place, steps = read.by_table, read.steps
        shared = ("distance", read.positions, steps, keys_read)
        if shared not in self._made:
            count = _op(place, "Squeeze", [keys_read], "keys_count")
            keys = _op(place, "Range", [_integer(place, 0), count, _integer(place, 1)], "key_numbers")
            if steps.keys > 1:
                keys = _op(place, "Mul", [keys, _integer(place, steps.keys)], "key_places")
            queries = _op(place, "Unsqueeze", [read.positions, _integers(place, [1, 3])], "query_numbers")
            if steps.queries > 1:
                queries = _op(place, "Mul", [queries, _integer(place, steps.queries)], "query_places")
            self._made[shared] = _op(place, "Sub", [keys, queries], "key_distances")
        return self._made[shared]

    def place(self, read: RelativeRead, keys_read: ir.Value, product: ir.Value) -> ir.Value:
        """Where the distance of each key stands among the columns of the product, int64 `[B or 1, H, L, T]`."""
        place, steps = read.by_table, read.steps
        heads, _, distances = _shape_of(read.table)
        shared = ("place", read.positions, steps, keys_read, heads, distances)
        if shared not in self._made:
            columns = _op(place, "Shape", [product], "columns", {"start": 3, "end": 4})
            last = _op(place, "Sub", [columns, _integers(place, [1])], "last_column")
            own = _op(place, "Sub", [columns, _integers(place, [1 + steps.ahead])], "own_column")
            places = _op(place, "Add", [self.distance(read, keys_read), own], "all_columns")
            places = _op(
                place, "Max", [_op(place, "Min", [places, last], "some_columns"), _integers(place, [0])], "columns_seen"
            )
            self._made[shared] = _op(place, "Expand", [places, _integers(place, [1, heads, 1, 1])], "columns_of_heads")
        return self._made[shared]


def lower_relative_attention(model: ir.Model) -> bool:
    """Read keys, values and tables of all attentions by relative position as far as they are used.

    Returns:
        Whether any is the kernel's, which behind a past takes several rows of a single sequence only.
    """
    uses, has_kernel = _Uses(), False
    for read in find_reads(model):
        if own := _own_rows(read):
            _read_distances(read, uses, uses.keys(read))
            _attend_in_place(model, read, own)
            has_kernel = True
        else:
            _attend_to_used(read, uses)
    return has_kernel


def _read_distances(read: RelativeRead, uses: _Uses, keys_read: ir.Value) -> None:
    """Score no more of the table's distances than twice as many as are seen, and gather from these."""
    place, table = read.by_table, np.asarray(read.table.const_value)
    name, ends, count = place.name or "", _ends(table.shape[2]), table.shape[2]
    blocks = [
        constant(place, f"{name}/table_{end}", table[:, :, count - end : count - start])
        for start, end in zip([0, *ends], ends, strict=False)
    ]
    product = _Product(name, _of(place.inputs[0]), blocks, ends, uses.farthest(read))
    graph = _graph(place)
    for node in (nodes := product.nodes()):
        graph.insert_before(place, node)
    scores = nodes[-1].outputs[0]
    read.gather.replace_input_with(0, scores)
    read.gather.replace_input_with(1, uses.place(read, keys_read, scores))


def _ends(distances: int) -> list[int]:
    """How many of the nearest distances the first block of a table has, the first two, and so on: each time twice as many."""
    ends = [min(SHORTEST_BLOCK, distances)]
    while ends[-1] < distances:
        ends.append(min(2 * ends[-1], distances))
    return ends


@dataclass(frozen=True)
class _Product:
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
        limit = _node("Constant", [], f"{name}/limit", [ir.AttrTensor("value", end)])
        is_more = _node("Greater", [self.seen, limit.outputs[0]], f"{name}/is_more")
        branches = {"then_branch": self._one_of(middle + 1, last), "else_branch": self._one_of(first, middle)}
        return [limit, is_more, _node("If", [is_more.outputs[0]], f"{name}/distances", _branches(name, branches))]

    def _some(self, last: int) -> list[ir.Node]:
        """With all blocks up to this one."""
        name = f"{self.name}/{last}"
        parts = [_node("MatMul", [self.located, self.blocks[index]], f"{name}/block_{index}") for index in range(last, -1, -1)]
        if len(parts) == 1:
            return parts
        return [*parts, _node("Concat", [part.outputs[0] for part in parts], f"{name}/blocks", [ir.AttrInt64("axis", 3)])]


def _node(op: str, inputs: Sequence[ir.Value], name: str, attributes: Sequence[ir.Attr] = ()) -> ir.Node:
    """A node of no graph yet."""
    node = ir.Node("", op, inputs, attributes=attributes, name=name)
    node.outputs[0].name = f"{name}_out"
    return node


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
    _, width, _ = _shape_of(read.table)
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
    heads, _, _ = _shape_of(read.table)
    context = np.asarray(_of(read.contexted.inputs[1]).const_value).reshape(-1)
    query = _op(place, "Add", [own.query, constant(place, f"{name}/context", context)], "query")
    key, value = insert_before(place, "Split", [own.key_value], f"{name}/key_value", {"axis": -1, "num_outputs": 2}, outputs=2)
    bias = _op(place, "Mul", [read.gather.outputs[0], constant(place, f"{name}/scale", np.float32(read.scale))], "bias")
    past = [own.write_key.inputs[0], own.write_value.inputs[0]]
    given = [query, key, value, *past, counter(model, "last_row"), counter(model, "total"), None, None, None, bias]
    sizes: Attributes = {"num_heads": heads, "kv_num_heads": heads, "scale": read.scale}
    y, *present = insert_before(
        place, "GroupQueryAttention", given, f"{name}/attention", sizes, domain="com.microsoft", outputs=3
    )
    model.opset_imports["com.microsoft"] = 1
    replace_value(read.merged, y)
    for written, appended in zip((read.keys, read.values), present, strict=True):
        replace_value(written, appended)


def _attend_to_used(read: RelativeRead, uses: _Uses) -> None:
    """Cut keys and values to those that are seen, or, where these are most of many, read all: a copy costs three readings."""
    seen, before, is_most = uses.keys(read), read.keys.producer(), None
    rows, place = seen, read.by_table
    if _shape_of(read.table)[2] > FEW_DISTANCES and (before is None or before.op_type != "Concat"):
        all_rows = _op(place, "Shape", [read.keys], "rows", {"start": 2, "end": 3})
        half = _op(place, "Div", [all_rows, _integers(place, [2])], "half_of_rows")
        is_most = _op(place, "Greater", [seen, half], "most_are_seen")
        rows = _op(place, "Where", [is_most, all_rows, seen], "rows_read")
    _read_distances(read, uses, rows)
    beyond = [uses.distance(read, rows), _integer(place, read.steps.ahead)]
    read.hide.replace_input_with(0, _op(place, "Greater", beyond, "hidden"))
    if is_most is None:
        read.turn.replace_input_with(0, _first_rows(read.turn, read.keys, rows))
        read.found.replace_input_with(1, _first_rows(read.found, read.values, rows))
        return
    turn = list(read.turn.attributes["perm"].as_ints())
    for product, cached, perm in ((read.scores, read.keys, turn), (read.found, read.values, None)):
        _multiply_by_rows(product, cached, perm, rows, is_most)


def _multiply_by_rows(product: ir.Node, cached: ir.Value, perm: list[int] | None, rows: ir.Value, is_all: ir.Value) -> None:
    """Let a product be with all rows of a cache, or with a copy of the first so many."""
    name, x = product.name or "", _of(product.inputs[0])
    cut = _node("Slice", [cached, *_span(product, rows)], f"{name}/rows_seen")
    branches = {"then_branch": [], "else_branch": [cut]}  # type: dict[str, list[ir.Node]]
    for branch, nodes in branches.items():
        multiplied = nodes[-1].outputs[0] if nodes else cached
        if perm is not None:
            nodes.append(_node("Transpose", [multiplied], f"{name}/{branch}_turned", [ir.AttrInt64s("perm", perm)]))
            multiplied = nodes[-1].outputs[0]
        nodes.append(_node("MatMul", [x, multiplied], f"{name}/{branch}_product"))
    choice = _node("If", [is_all], f"{name}/by_rows", _branches(name, branches))
    _graph(product).insert_before(product, choice)
    for reader, index in list(product.outputs[0].uses()):
        reader.replace_input_with(index, choice.outputs[0])


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


def _branches(name: str, branches: Mapping[str, Sequence[ir.Node]]) -> list[ir.Attr]:
    """Of an `If`; each gives what its last node gives."""
    return [
        ir.AttrGraph(branch, ir.Graph([], nodes[-1].outputs, nodes=nodes, name=f"{name}/{branch}"))
        for branch, nodes in branches.items()
    ]


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
    graph, name = _graph(place), "relative/" + "_".join(map(str, (*numbers.shape, "of", *numbers.flat)))
    return graph.initializers[name] if name in graph.initializers else constant(place, name, numbers)


def _graph(place: ir.Node) -> ir.Graph:
    graph = place.graph
    assert isinstance(graph, ir.Graph)  # the nodes of reads are the stage's own
    return graph


def _shape_of(table: ir.Value) -> tuple[int, int, int]:
    """Heads, their width, distances."""
    heads, width, distances = np.asarray(table.const_value).shape
    return heads, width, distances


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
