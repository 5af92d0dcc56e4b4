"""Let attention by relative position cost by the length used.

In the portable graph a layer of `models.layers.relative_attention` scores every row of its caches, and the table of distances
as well. Here both are read as far as any query of the call sees. Where queries and keys are the same rows, and only where they
are, ONNX Runtime's `GroupQueryAttention` appends to the caches and reads them in place, and what the distances score is its
`attention_bias`; where they are of different rates (trax' resampling), or a constant row stands before the cache, the rows
used are copied out of it (docs/adr/0003 has the measurements).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ..graphs.nodes import Attributes, constant, insert_before, replace_value
from .counters import counter
from .distance_tables import Product, branches_of, ends_of, new_node
from .relative_reads import OwnRows, RelativeRead, find_reads, own_rows, require, shape_of
from .relative_uses import Uses, add_op, graph_of, integer, integers

FEW_DISTANCES = 2048
"""Of a table for a context so short that a copy of all keys costs no more than the choice not to make it."""


def lower_relative_attention(model: ir.Model) -> bool:
    """Read keys, values and tables of all attentions by relative position as far as they are used.

    Returns:
        Whether any is the kernel's, which behind a past takes several rows of a single sequence only.
    """
    uses, has_kernel = Uses(), False
    for read in find_reads(model):
        if own := own_rows(read):
            _read_distances(read, uses, uses.keys(read))
            _attend_in_place(model, read, own)
            has_kernel = True
        else:
            _attend_to_used(read, uses)
    return has_kernel


def _read_distances(read: RelativeRead, uses: Uses, keys_read: ir.Value) -> None:
    """Score no more of the table's distances than twice as many as are seen, and gather from these."""
    place, table = read.by_table, np.asarray(read.table.const_value)
    name, ends, count = place.name or "", ends_of(table.shape[2]), table.shape[2]
    blocks = [
        constant(place, f"{name}/table_{end}", table[:, :, count - end : count - start])
        for start, end in zip([0, *ends], ends, strict=False)
    ]
    product = Product(name, require(place.inputs[0]), blocks, ends, uses.farthest(read))
    graph = graph_of(place)
    for node in (nodes := product.nodes()):
        graph.insert_before(place, node)
    scores = nodes[-1].outputs[0]
    read.gather.replace_input_with(0, scores)
    read.gather.replace_input_with(1, uses.place(read, keys_read, scores))


def _attend_in_place(model: ir.Model, read: RelativeRead, own: OwnRows) -> None:
    """Append the rows and attend by the kernel, to whose scores those of the distances are added."""
    place, name = read.found, read.found.name
    heads, _, _ = shape_of(read.table)
    context = np.asarray(require(read.contexted.inputs[1]).const_value).reshape(-1)
    query = add_op(place, "Add", [own.query, constant(place, f"{name}/context", context)], "query")
    key, value = insert_before(place, "Split", [own.key_value], f"{name}/key_value", {"axis": -1, "num_outputs": 2}, outputs=2)
    bias = add_op(place, "Mul", [read.gather.outputs[0], constant(place, f"{name}/scale", np.float32(read.scale))], "bias")
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


def _attend_to_used(read: RelativeRead, uses: Uses) -> None:
    """Cut keys and values to those that are seen, or, where these are most of many, read all: a copy costs three readings."""
    seen, before, is_most = uses.keys(read), read.keys.producer(), None
    rows, place = seen, read.by_table
    if shape_of(read.table)[2] > FEW_DISTANCES and (before is None or before.op_type != "Concat"):
        all_rows = add_op(place, "Shape", [read.keys], "rows", {"start": 2, "end": 3})
        half = add_op(place, "Div", [all_rows, integers(place, [2])], "half_of_rows")
        is_most = add_op(place, "Greater", [seen, half], "most_are_seen")
        rows = add_op(place, "Where", [is_most, all_rows, seen], "rows_read")
    _read_distances(read, uses, rows)
    beyond = [uses.distance(read, rows), integer(place, read.steps.ahead)]
    read.hide.replace_input_with(0, add_op(place, "Greater", beyond, "hidden"))
    if is_most is None:
        read.turn.replace_input_with(0, _first_rows(read.turn, read.keys, rows))
        read.found.replace_input_with(1, _first_rows(read.found, read.values, rows))
        return
    turn = list(read.turn.attributes["perm"].as_ints())
    for product, cached, perm in ((read.scores, read.keys, turn), (read.found, read.values, None)):
        _multiply_by_rows(product, cached, perm, rows, is_most)


def _multiply_by_rows(product: ir.Node, cached: ir.Value, perm: list[int] | None, rows: ir.Value, is_all: ir.Value) -> None:
    """Let a product be with all rows of a cache, or with a copy of the first so many."""
    name, x = product.name or "", require(product.inputs[0])
    cut = new_node("Slice", [cached, *_span(product, rows)], f"{name}/rows_seen")
    branches = {"then_branch": [], "else_branch": [cut]}  # type: dict[str, list[ir.Node]]
    for branch, nodes in branches.items():
        multiplied = nodes[-1].outputs[0] if nodes else cached
        if perm is not None:
            nodes.append(new_node("Transpose", [multiplied], f"{name}/{branch}_turned", [ir.AttrInt64s("perm", perm)]))
            multiplied = nodes[-1].outputs[0]
        nodes.append(new_node("MatMul", [x, multiplied], f"{name}/{branch}_product"))
    choice = new_node("If", [is_all], f"{name}/by_rows", branches_of(name, branches))
    graph_of(product).insert_before(product, choice)
    for reader, index in list(product.outputs[0].uses()):
        reader.replace_input_with(index, choice.outputs[0])


def _first_rows(place: ir.Node, rows: ir.Value, count: ir.Value) -> ir.Value:
    """So many of `[B, H, S, Dh]`; of a constant row before a cache and that cache, one less of the cache."""
    before = rows.producer()
    if before is not None and before.op_type == "Concat":
        of_cache = add_op(place, "Sub", [count, integers(place, [1])], "rows_of_cache")
        cut = add_op(place, "Slice", [before.inputs[1], *_span(place, of_cache)], "rows_seen")
        return add_op(place, "Concat", [before.inputs[0], cut], "all_rows_seen", {"axis": 2})
    return add_op(place, "Slice", [rows, *_span(place, count)], "rows_seen")


def _span(place: ir.Node, count: ir.Value) -> Sequence[ir.Value]:
    """Start, end and axis of the first so many rows."""
    return integers(place, [0]), count, integers(place, [2])
