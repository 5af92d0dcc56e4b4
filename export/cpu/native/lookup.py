"""Nodes that look rows up: tables of tokens and positions, rows that are wanted, rows at places that the host is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from ....contract.program import Embed, Take
from .lowering import Lowering
from .tensors import Array, Size, Unsupported
from .values import Ids, Looked, Places, Positions, RowIndex, Scale, Sizes, Wanted


def _gather(lowering: Lowering, node: ir.Node) -> Any:
    where, axis = lowering.value(node, 1), node.attributes.get_int("axis", 0)
    if isinstance(where, Wanted):
        return _taken(lowering, node, axis)
    if isinstance(where, Places):
        x = lowering.tensor(node, 0)
        if axis != next(i for i, dim in enumerate(x.dims) if isinstance(dim, Size) and dim.letter == "L"):
            raise Unsupported("places on another axis than that of rows")
        return x  # the host gives the rows at these places
    if isinstance(where, RowIndex) and axis == 0:
        return Positions(lowering.constant(node, 0))
    if isinstance(where, Ids) and axis == 0:
        return _embedded(lowering, lowering.constant(node, 0), where)
    if isinstance(lowering.value(node, 0), Sizes):
        values = lowering.sizes(node, 0)
        return Sizes(tuple(values[int(index)] for index in lowering.constant(node, 1).reshape(-1)))
    raise Unsupported("a look-up of what is neither ids nor rows")


def _taken(lowering: Lowering, node: ir.Node, axis: int) -> Any:
    x = lowering.tensor(node, 0)
    if x.dims[axis] != Size("L"):
        raise Unsupported("wanted rows on another axis than that of firings")
    given = lowering.rows(x)
    out = lowering.draft.new(lowering.draft.buffers[given].width, wanted=True)
    return lowering.made(Take(x=given, out=out), [*x.dims[:axis], Size("N"), *x.dims[axis + 1 :]])


def _embedded(lowering: Lowering, table: Array, ids: Ids) -> Any:
    if table.ndim != 2:
        raise Unsupported("a table of more dimensions than tokens and columns")
    if table.dtype == np.float32 and table.shape[1] == 1:
        return Scale(ids, table.reshape(-1))
    if table.dtype != np.float32:
        return Looked(ids, table)
    return embed(lowering, ids, table, "float32")


def embed(lowering: Lowering, ids: Ids, table: Array, dtype: str, scales: Array | None = None) -> Any:
    """Rows of a table of any dtype that steps know."""
    count = lowering.inputs[ids.index].count
    tokens, width = table.shape
    step = Embed(
        ids=ids.index,
        count=count,
        out=lowering.draft.new(count * width),
        width=width,
        tokens=tokens,
        table=lowering.data.place(table),
        dtype=dtype,  # type: ignore[arg-type]
        scales=None if scales is None else lowering.data.place(scales.astype(np.float32)),
    )
    return lowering.made(step, (*ids.dims, width))


HANDLERS: dict[str, Callable[[Lowering, ir.Node], Any]] = {"Gather": _gather}
