"""The resident form of a stage graph: the rows that stages hand to one another stay where the engines keep them.

In the portable form the host hands a stage its rows, at another address each time; on a device that would cost copies, or a
CUDA graph for every phase. In the resident form a stage is given the whole log of each stage it reads, finds its own rows in
it by `position`, and appends what it gives to a log of its own, as to a cache. No address ever changes: between two decode
steps only token ids and positions do (docs/adr/0007).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ...contract import InputSpec, StageSpec, TensorSpec, resident_contract_of
from .dialect import Dialect
from .functions import DOMAIN
from .nodes import Attributes, constant, insert_before

_TIME_MAJOR = (1, 0, 2)
_DTYPES = {"int64": ir.DataType.INT64, "float32": ir.DataType.FLOAT, "float16": ir.DataType.FLOAT16}


def make_resident(model: ir.Model, spec: StageSpec, leads: Mapping[str, int], dialect: Dialect) -> None:
    """Turn a portable stage graph, in place, into its resident form.

    Args:
        model: the graph.
        spec: its stage.
        leads: rows of zeros in front of each stage's log, as `contract.leads_of` gives them.
        dialect: the one that the graph is written in.
    """
    graph = model.graph
    for tensor in resident_contract_of(spec).inputs:
        _declare(graph, tensor)
    for name, given in zip(spec.names(), spec.inputs, strict=True):
        if given.reads == "newest":
            _read_newest(graph, name, given)
        elif given.reads == "span":
            _read_block(graph, name, given)
        elif given.source is not None:
            _read_log(graph, name, given, leads[given.source])
    if spec.output == "hidden":
        body = ir.serde.deserialize_function(dialect.append_rows(model.opset_imports[""]))
        model.functions[body.identifier()] = body
        model.opset_imports[DOMAIN] = 1
        _append_to_log(graph, spec, leads[spec.name])
    RemoveUnusedNodesPass()(model)


def _declare(graph: ir.Graph, tensor: TensorSpec) -> None:
    """Add an input that is not there yet; of ids that firings pick the graph is told as many as they read, and no more."""
    for value in graph.inputs:
        if value.name == tensor.name:
            value.shape = ir.Shape(tensor.shape)
            return
    graph.inputs.append(ir.Value(name=tensor.name, shape=ir.Shape(tensor.shape), type=ir.TensorType(_DTYPES[tensor.dtype])))


def _named(values: Sequence[ir.Value], name: str) -> ir.Value:
    return next(value for value in values if value.name == name)


def _read_log(graph: ir.Graph, name: str, given: InputSpec, lead: int) -> None:
    """Firing i reads rows `[i * count - shift, i * count - shift + count)`, which stand `lead` rows further on in the log.

    Every sequence stands at a position of its own and reads its own log. Of the ways to say so this one costs TensorRT-RTX
    no kernel: it gathers and goes on to the first norm in one. With indices of two dimensions it works out the mask there too,
    and the norm apart (docs/adr/0007).
    """
    old, label, first = _named(graph.inputs, name), f"{name}/rows", graph[0]

    def insert(op: str, inputs: Sequence[ir.Value], part: str, attributes: Attributes | None = None) -> ir.Value:
        return insert_before(first, op, inputs, f"{label}/{part}", attributes)[0]

    def numbers(part: str, values: int | Sequence[int]) -> ir.Value:
        return constant(first, f"{label}/{part}", np.array(values, np.int64))

    position, offsets = _named(graph.inputs, "position"), _named(graph.inputs, "offsets")
    here = insert("Unsqueeze", [position, numbers("sequence", [1, 2, 3])], "here")  # [B, 1, 1, 1]
    firings = insert("Add", [here, insert("Unsqueeze", [offsets, numbers("column", [1])], "columns")], "firings")
    scaled = insert("Mul", [firings, numbers("count", given.count)], "scaled")
    index = insert("Add", [scaled, numbers("lead", lead - given.shift)], "index")  # [B, 1, L, 1]
    if given.count > 1:
        grid = insert("Add", [index, numbers("within", range(given.count))], "grid")
        index = insert("Reshape", [grid, numbers("column_of_rows", [0, 1, -1, 1])], "flat_index")
    rows = _taken(first, _named(graph.inputs, f"rows.{given.source}"), index, label)
    _replace_time_major(old, rows, label)
    graph.inputs.remove(old)


def _taken(near: ir.Node, log: ir.Value, index: ir.Value, label: str) -> ir.Value:
    """Rows `[B, N, D]` of a log, at an index `[B, 1, N, 1]`."""
    (taken,) = insert_before(near, "GatherND", [log, index], f"{label}/taken", {"batch_dims": 2})
    head = constant(near, f"{label}/head", np.array([1], np.int64))
    return insert_before(near, "Squeeze", [taken, head], f"{label}/rows")[0]


def _placed(graph: ir.Graph, name: str, given: InputSpec) -> ir.Value:
    """Rows `[B, N, D]` of a log, at the places `[B, N]` that the host tells."""
    first, label = graph[0], f"{name}/rows"
    around = constant(first, f"{label}/around", np.array([1, 3], np.int64))
    (index,) = insert_before(first, "Unsqueeze", [_named(graph.inputs, f"places.{name}"), around], f"{label}/index")
    return _taken(first, _named(graph.inputs, f"rows.{given.source}"), index, label)


def _read_block(graph: ir.Graph, name: str, given: InputSpec) -> None:
    """The block of all spans is gathered, each sequence's from its own log; where in it each span is stays as it was."""
    if given.source is None:
        return
    old = _named(graph.inputs, name)
    _replace_time_major(old, _placed(graph, name, given), f"{name}/rows")
    graph.inputs.remove(old)


def _read_newest(graph: ir.Graph, name: str, given: InputSpec) -> None:
    """What the portable graph picks from a block by an index `[L]` is gathered, or told, as it is: the `count` rows of each.

    A stage that remembers nothing may ask the block how many sequences there are; what is gathered or told has as many.
    """
    old, index = _named(graph.inputs, name), _named(graph.inputs, f"{name}.index")
    told = old if given.source is None else _named(graph.inputs, f"places.{name}")
    rows = old if given.source is None else _placed(graph, name, given)
    for number, (picking, _) in enumerate(list(old.uses())):
        if _is_size(picking, 0 if given.source is None else 1):
            if given.source is not None:
                (size,) = insert_before(picking, "Shape", [rows], f"{name}/rows/sequences_{number}", {"start": 0, "end": 1})
                picking.outputs[0].replace_all_uses_with(size)
                graph.remove(picking, safe=True)
            continue
        if picking.op_type != "Gather":
            raise TypeError(f"expected newest rows to be picked by Gather, got {picking.op_type} of {name}")
        picked = picking.outputs[0]
        if given.source is None:
            for reader, place in list(picked.uses()):
                reader.replace_input_with(place, rows)
        else:
            _replace_time_major(picked, rows, f"{name}/rows/{number}")
            for reader, _ in list(picked.uses()):
                graph.remove(reader, safe=True)
        graph.remove(picking, safe=True)
    if index.uses():
        _replace_index(graph, index, told, given.count)
    graph.inputs.remove(index)
    if given.source is not None:
        graph.inputs.remove(old)


def _replace_index(graph: ir.Graph, index: ir.Value, told: ir.Value, count: int) -> None:
    """Where the graph wants to know how many firings there are: of what is told each has `count`, one after another."""
    first, label = graph[0], f"{index.name}/told"

    def insert(op: str, inputs: Sequence[ir.Value], part: str, attributes: Attributes | None = None) -> ir.Value:
        return insert_before(first, op, inputs, f"{label}/{part}", attributes)[0]

    zero, step = (constant(first, f"{label}/{part}", np.array(size, np.int64)) for part, size in (("zero", 0), ("step", count)))
    end = insert("Squeeze", [insert("Shape", [told], "shape", {"start": 1, "end": 2})], "rows")
    index.replace_all_uses_with(insert("Range", [zero, end, step], "index"))


def _replace_time_major(old: ir.Value, rows: ir.Value, label: str) -> None:
    """Let readers of time-major `[N, B, D]` read batch-major `[B, N, D]`; what they turned needs no turning any more."""
    for number, (node, index) in enumerate(list(old.uses())):
        if _is_time_major(node):
            for reader, place in list(node.outputs[0].uses()):
                reader.replace_input_with(place, rows)
        else:
            (turned,) = insert_before(node, "Transpose", [rows], f"{label}/turned_{number}", {"perm": _TIME_MAJOR})
            node.replace_input_with(index, turned)


def _is_size(node: ir.Node, axis: int) -> bool:
    """Whether a node asks how large its input is along one axis."""
    if node.op_type != "Shape":
        return False
    start, end = (node.attributes.get(name) for name in ("start", "end"))
    return (start.as_int() if start else 0) == axis and end is not None and end.as_int() == axis + 1


def _is_time_major(node: ir.Node) -> bool:
    return node.op_type == "Transpose" and tuple(node.attributes["perm"].as_ints()) == _TIME_MAJOR


def _append_to_log(graph: ir.Graph, spec: StageSpec, lead: int) -> None:
    hidden = _named(graph.outputs, "hidden")
    last = hidden.producer()
    if last is None:
        raise TypeError(f'expected a node that computes the rows of stage "{spec.name}", got an input of its graph')

    def insert(op: str, inputs: Sequence[ir.Value], part: str) -> ir.Value:
        return insert_before(last, op, inputs, f"hidden/rows/{part}")[0]

    def number(part: str, value: int) -> ir.Value:
        return constant(last, f"hidden/rows/{part}", np.array(value, np.int64))

    past, position = _named(graph.inputs, "past_rows"), _named(graph.inputs, "position")
    scaled = insert("Mul", [position, number("per_firing", spec.output_rows)], "scaled")
    first = insert("Add", [scaled, number("lead", lead)], "first")
    appended = [past, _batch_major(last), first]
    (present,) = insert_before(last, "AppendRows", appended, "hidden/rows/append", domain=DOMAIN)
    present.name, present.shape, present.type = "present_rows", past.shape, past.type
    graph.outputs[graph.outputs.index(hidden)] = present


def _batch_major(last: ir.Node) -> ir.Value:
    """What the last node turned to be time-major."""
    rows = last.inputs[0]
    if not _is_time_major(last) or rows is None:
        raise TypeError(f"expected a stage graph to end with a transposition to time-major rows, got {last.op_type}")
    return rows
