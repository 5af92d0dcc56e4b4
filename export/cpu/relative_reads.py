"""Attentions by relative position in a stage graph: where they are, and what they read.

They are found by their shape, as `models.layers.relative_attention` is exported: nothing in the portable graph names them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from .attention import KERNEL_STEP


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
        return require(self.turn.inputs[0])

    @property
    def values(self) -> ir.Value:
        return require(self.found.inputs[1])


class OtherGraph(Exception):
    """These nodes are no attention by relative position, or not as foveal writes it."""


def find_reads(model: ir.Model) -> list[RelativeRead]:
    """The attentions by relative position of a stage graph, in dataflow order."""
    return list(_reads(model))


def _reads(model: ir.Model) -> Iterator[RelativeRead]:
    for node in model.graph:
        if node.op_type == "GatherElements":
            try:
                yield _read_around(node)
            except OtherGraph:  # a gather of something else
                continue


def _read_around(gather: ir.Node) -> RelativeRead:
    """The attention whose distances this gathers."""
    by_table = _producer(gather.inputs[0], "MatMul")
    table = require(by_table.inputs[1])
    if table.const_value is None or len(table.const_value.shape) != 3:
        raise OtherGraph
    place = _producer(_producer(_producer(gather.inputs[1], "Expand").inputs[0], "Clip").inputs[0], "Add")
    distance = require(place.inputs[0])
    both = _reader(gather.outputs[0], "Add")
    scores = _producer(both.inputs[0], "MatMul")
    scaled = _reader(both.outputs[0], "Mul")
    hide = _reader(scaled.outputs[0], "Where")
    beyond = _producer(hide.inputs[0], "Greater")
    if beyond.inputs[0] is not distance:
        raise OtherGraph
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
    return Steps(query_step, key_step, ahead), require(_producer(column, "Unsqueeze").inputs[0])


def _unscaled(value: ir.Value | None) -> tuple[ir.Value, int]:
    """What is multiplied by a number, if it is, and the number."""
    node = require(value).producer()
    if node is None or node.op_type != "Mul":
        return require(value), 1
    return require(node.inputs[0]), int(_number(node.inputs[1]))


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


def own_rows(read: RelativeRead) -> OwnRows | None:
    """Of a layer that the kernel can take: queries and keys are the same rows, in caches that nothing else reads."""
    try:
        write_key, write_value = (_producer(value, "WriteRows") for value in (read.keys, read.values))
        key_value, from_value = (_projected(write.inputs[1]) for write in (write_key, write_value))
        heads = _producer(_producer(read.contexted.inputs[0], "Transpose").inputs[0], "Reshape")
    except OtherGraph:
        return None
    are_own = read.steps == Steps(1, 1, 0) and key_value is from_value
    are_alone = all(len(list(value.uses())) == 1 for value in (read.keys, read.values))
    _, width, _ = shape_of(read.table)
    is_float = require(write_key.inputs[0]).dtype == ir.DataType.FLOAT
    if not (are_own and are_alone and is_float) or width % KERNEL_STEP:
        return None
    return OwnRows(require(heads.inputs[0]), key_value, write_key, write_value)


def _projected(rows: ir.Value | None) -> ir.Value:
    """The projection that these rows `[B, H, L, Dh]` of keys or of values are a half of."""
    half = _producer(_producer(rows, "Squeeze").inputs[0], "Slice")
    turned = _producer(half.inputs[0], "Transpose")
    if list(turned.attributes["perm"].as_ints()) != [2, 0, 3, 1, 4]:
        raise OtherGraph
    return require(_producer(turned.inputs[0], "Reshape").inputs[0])


def shape_of(table: ir.Value) -> tuple[int, int, int]:
    """Heads, their width, distances."""
    heads, width, distances = np.asarray(table.const_value).shape
    return heads, width, distances


def require(value: ir.Value | None) -> ir.Value:
    if value is None:
        raise OtherGraph
    return value


def _producer(value: ir.Value | None, op: str) -> ir.Node:
    """What gives a value, if it is such a node."""
    node = require(value).producer()
    if node is None or node.op_type != op:
        raise OtherGraph
    return node


def _reader(value: ir.Value, op: str) -> ir.Node:
    """What alone reads a value, if it is such a node."""
    readers = [node for node, _ in value.uses()]
    if len(readers) != 1 or readers[0].op_type != op:
        raise OtherGraph
    return readers[0]


def _number(value: ir.Value | None) -> float:
    """The only number of a constant."""
    if value is None or value.const_value is None:
        raise OtherGraph
    return float(np.asarray(value.const_value).item())
