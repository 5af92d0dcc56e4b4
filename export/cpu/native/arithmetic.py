"""Nodes that compute, element by element or along a row: sums, activations, norms, and what rotations are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from ....contract.program import Activate, Add, Gate, Mean, Mul, Norm, Repeat
from .fuse import AddBias, AddPositions
from .lookup import embed
from .lowering import Lowering
from .tensors import COSINE, FIRST, PLAIN, SECOND, SINE, Array, Size, Tensor, Unsupported, broadcast, fixed
from .values import Activated, Looked, Positions, RowIndex, Scale, Scaled, Scores, Sizes, Squares, Turns


def _cast(lowering: Lowering, node: ir.Node) -> Any:
    value, to = lowering.value(node, 0), ir.DataType(node.attributes["to"].as_int())
    if isinstance(value, Looked) and to == ir.DataType.FLOAT:
        return embed(lowering, value.ids, value.table, "float16") if value.table.dtype == np.float16 else value
    if isinstance(value, np.ndarray):
        return value.astype(to.numpy())
    if isinstance(value, Positions) and to == ir.DataType.FLOAT:  # a narrow table of positions is widened here, once
        return Positions(value.table.astype(np.float32))
    if isinstance(value, RowIndex | Sizes) or (isinstance(value, Tensor) and to == ir.DataType.FLOAT):
        return value
    raise Unsupported(f"a cast to {to.name.lower()}")


def _mul(lowering: Lowering, node: ir.Node) -> Any:
    a, b = lowering.value(node, 0), lowering.value(node, 1)
    if isinstance(a, np.ndarray | Turns | Scale | Activated | Squares) and not isinstance(b, np.ndarray | Turns | Scale):
        a, b = b, a
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a * b
    if isinstance(a, Positions) and isinstance(b, Positions):
        return Positions(a.table * b.table)
    if isinstance(a, RowIndex) and isinstance(b, np.ndarray):
        dims = broadcast(a.dims, b.shape)
        return Turns(lowering.data.place(b.astype(np.float32)), dims, b.size)
    if isinstance(a, Tensor) and isinstance(b, Turns):
        return _turned(a, b)
    if isinstance(a, Looked) and isinstance(b, Scale) and a.is_centred:
        return embed(lowering, a.ids, a.table, "uint8", b.scales)
    if isinstance(a, Squares) and isinstance(b, np.ndarray) and a.kind == "normed":
        return _norm(lowering, a.x, "rms_clamp" if a.is_clamped else "rms", a.eps, b, None)
    if isinstance(a, Tensor) and isinstance(b, np.ndarray) and b.size == 1:
        return Scaled(a, float(b.reshape(-1)[0]))
    if isinstance(a, Tensor) and isinstance(b, Activated):
        return _gated(lowering, a, b)
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if _are_same(a, b):
            return Squares(a, "squares")
        left, right = lowering.rows(a), lowering.rows(b)
        return lowering.made(Mul(a=left, b=right, out=lowering.draft.like(left)), broadcast(a.dims, b.dims))
    raise Unsupported("a multiplication that is no gate, no rotation and no norm")


def _are_same(a: Tensor, b: Tensor) -> bool:
    return a.buffer == b.buffer and a.dims == b.dims and np.array_equal(a.elements, b.elements)


def _turned(x: Tensor, turns: Turns) -> Tensor:
    """Columns times the cosines or sines of their angles."""
    if turns.kind == PLAIN or not x.is_plain:
        raise Unsupported("angles that are neither cosines nor sines")
    dims = broadcast(x.dims, turns.dims)
    shape = fixed(dims)
    elements = np.broadcast_to(x.elements, shape).copy()
    elements["angle"] = np.broadcast_to(np.arange(turns.count).reshape(fixed(turns.dims)), shape)
    elements["kind"] = turns.kind
    return Tensor(x.buffer, dims, elements, turns.frequencies)


def _rotated(a: Tensor, b: Tensor, kind: int) -> Tensor | None:
    """Of columns times cosines and columns times sines: turned ones."""
    if not ((a.elements["kind"] == COSINE).all() and (b.elements["kind"] == SINE).all()):
        return None
    if a.buffer != b.buffer or a.angles != b.angles or not np.array_equal(a.elements["angle"], b.elements["angle"]):
        return None
    elements = a.elements.copy()
    elements["partner"], elements["kind"] = b.elements["column"], kind
    return a.with_elements(elements, a.dims)


def _gated(lowering: Lowering, x: Tensor, gate: Activated) -> Any:
    if gate.kind == "sigmoid" and _are_same(x, gate.x):
        return Activated(x, "silu")
    if gate.kind == "sigmoid":
        raise Unsupported("a sigmoid of other rows than it multiplies")
    width = lowering.draft.buffers[x.buffer].width
    halves = np.concatenate([gate.x.columns, x.columns])
    if x.buffer == gate.x.buffer and np.array_equal(halves, np.arange(width)):
        out = lowering.draft.like(x.buffer, width // 2)
        return lowering.made(Gate(x=x.buffer, out=out, width=width // 2, activation="silu"), x.dims)
    left = _activate(lowering, gate.x, "silu")
    return lowering.made(Mul(a=left.buffer, b=lowering.rows(x), out=lowering.draft.like(left.buffer)), x.dims)


def _sub(lowering: Lowering, node: ir.Node) -> Any:
    a, b = lowering.value(node, 0), lowering.value(node, 1)
    if isinstance(a, Looked) and isinstance(b, np.ndarray) and float(b.reshape(-1)[0]) == 128:
        return replace(a, is_centred=True)
    if isinstance(a, Positions) and isinstance(b, np.ndarray):
        return Positions(a.table - b)
    if isinstance(a, Tensor) and isinstance(b, Tensor) and (turned := _rotated(a, b, FIRST)) is not None:
        return turned
    raise Unsupported("a difference that is no rotation")


def _add(lowering: Lowering, node: ir.Node) -> Any:
    a, b = lowering.value(node, 0), lowering.value(node, 1)
    if isinstance(a, np.ndarray | Positions):
        a, b = b, a
    if isinstance(a, Squares) and a.kind == "mean" and isinstance(b, np.ndarray):
        return replace(a, eps=float(b.reshape(-1)[0]))
    if not isinstance(a, Tensor):
        raise Unsupported("a sum of what is no rows")
    if isinstance(b, Positions):
        given = lowering.rows(a)
        place, count = lowering.data.place(b.table), len(b.table)
        return lowering.made(AddPositions(given, lowering.draft.like(given), place, count), a.dims)
    if isinstance(b, np.ndarray):
        given = lowering.rows(a)
        if b.size != a.dims[-1]:
            raise Unsupported("a constant that is no vector")
        return lowering.made(AddBias(given, lowering.draft.like(given), lowering.data.bias(b.reshape(-1))), a.dims)
    if isinstance(b, Tensor):
        for one, other in ((a, b), (b, a)):
            if (turned := _rotated(one, other, SECOND)) is not None:
                return turned
        return _summed(lowering, a, b)
    raise Unsupported("a sum of what is no rows")


def _summed(lowering: Lowering, a: Tensor, b: Tensor) -> Tensor:
    dims = broadcast(a.dims, b.dims)
    left, right = (_widened(lowering, one, fixed(dims)) for one in (a, b))
    return lowering.made(Add(a=left, b=right, out=lowering.draft.like(left)), dims)


def _widened(lowering: Lowering, x: Tensor, shape: tuple[int, ...]) -> int:
    """Rows that are repeated to a shape, as a sum wants them."""
    given = lowering.rows(x)
    if x.elements.size == int(np.prod(shape)):
        return given
    count = int(np.prod(shape)) // x.elements.size
    if not np.array_equal(np.broadcast_to(x.elements["column"], shape).reshape(-1), np.tile(x.columns, count)):
        raise Unsupported("a sum with parts of rows")
    out = lowering.draft.like(given, count * lowering.draft.buffers[given].width)
    lowering.draft.steps.append(Repeat(x=given, out=out, count=count))
    return out


def _activate(lowering: Lowering, x: Tensor, activation: str) -> Tensor:
    given = lowering.rows(x)
    step = Activate(x=given, out=lowering.draft.like(given), activation=activation)  # type: ignore[arg-type]
    return lowering.made(step, x.dims)


def _gelu(lowering: Lowering, node: ir.Node) -> Tensor:
    approximate = node.attributes.get_string("approximate", "none")
    return _activate(lowering, lowering.tensor(node, 0), "gelu_tanh" if approximate == "tanh" else "gelu")


def _relu(lowering: Lowering, node: ir.Node) -> Tensor:
    return _activate(lowering, lowering.tensor(node, 0), "relu")


def _sigmoid(lowering: Lowering, node: ir.Node) -> Activated:
    return Activated(lowering.tensor(node, 0), "sigmoid")


def _cos_or_sin(lowering: Lowering, node: ir.Node) -> Turns:
    turns = lowering.value(node, 0)
    if not isinstance(turns, Turns):
        raise Unsupported("of what are no angles")
    return replace(turns, kind=COSINE if node.op_type == "Cos" else SINE)


def _layer_norm(lowering: Lowering, node: ir.Node) -> Tensor:
    x = lowering.tensor(node, 0)
    if node.attributes.get_int("axis", -1) not in (-1, len(x.dims) - 1):
        raise Unsupported("a norm of several axes")
    beta = lowering.constant(node, 2) if len(node.inputs) > 2 and node.inputs[2] is not None else None
    return _norm(lowering, x, "layer", node.attributes.get_float("epsilon", 1e-5), lowering.constant(node, 1), beta)


def _norm(lowering: Lowering, x: Tensor, kind: str, eps: float, gamma: Array, beta: Array | None) -> Tensor:
    width = x.dims[-1]
    if not isinstance(width, int) or gamma.size != width:
        raise Unsupported("a norm of another axis than that of columns")
    given = lowering.rows(x)
    step = Norm(
        kind=kind,  # type: ignore[arg-type]
        x=given,
        out=lowering.draft.like(given),
        width=width,
        eps=eps,
        gamma=lowering.data.place(gamma.reshape(-1).astype(np.float32)),
        beta=None if beta is None else lowering.data.place(beta.reshape(-1).astype(np.float32)),
    )
    return lowering.made(step, x.dims)


def _pow(lowering: Lowering, node: ir.Node) -> Squares:
    if float(lowering.constant(node, 1).reshape(-1)[0]) != 2:
        raise Unsupported("a power that is no square")
    return Squares(lowering.tensor(node, 0), "squares")


def _reduce_mean(lowering: Lowering, node: ir.Node) -> Any:
    value = lowering.value(node, 0)
    axes = [int(axis) for axis in lowering.constant(node, 1).reshape(-1)]
    x = value.x if isinstance(value, Squares) else lowering.tensor(node, 0)
    if len(axes) != 1:
        raise Unsupported("a mean along several axes")
    axis = axes[0] % len(x.dims)
    if isinstance(value, Squares):
        if value.kind != "squares" or axis != len(x.dims) - 1:
            raise Unsupported("a mean of squares along another axis than that of columns")
        return replace(value, kind="mean")
    count = x.dims[axis]
    if x.axis(axis) != 0 or not isinstance(count, int):
        raise Unsupported("a mean along another axis than that of a window")
    given = lowering.rows(x)
    out = lowering.draft.like(given, lowering.draft.buffers[given].width // count)
    dims = [*x.dims[:axis], *([1] if node.attributes.get_int("keepdims", 1) else []), *x.dims[axis + 1 :]]
    return lowering.made(Mean(x=given, out=out, count=count), dims)


def _sqrt(lowering: Lowering, node: ir.Node) -> Squares:
    value = lowering.value(node, 0)
    if not isinstance(value, Squares) or value.kind != "mean":
        raise Unsupported("a root of what is no mean of squares")
    return replace(value, kind="root")


def _clip(lowering: Lowering, node: ir.Node) -> Squares:
    value = lowering.value(node, 0)
    has_most = len(node.inputs) > 2 and node.inputs[2] is not None
    if not isinstance(value, Squares) or value.kind != "root" or value.eps or has_most:
        raise Unsupported("a bound on what is no root mean square")
    return replace(value, eps=float(lowering.constant(node, 1).reshape(-1)[0]), is_clamped=True)


def _div(lowering: Lowering, node: ir.Node) -> Any:
    a, b = lowering.value(node, 0), lowering.value(node, 1)
    if isinstance(a, Sizes):
        divisor = int(lowering.constant(node, 1).reshape(-1)[0])
        return Sizes(tuple(_divided(one, divisor) for one in a.values))
    if isinstance(a, Tensor) and isinstance(b, Squares) and b.kind == "root" and _are_same(a, b.x):
        return replace(b, kind="normed")
    raise Unsupported("a quotient that is no norm")


def _divided(size: int | Size, by: int) -> int | Size:
    number = size if isinstance(size, int) else size.factor
    if number % by:
        raise Unsupported("a size that is divided and leaves a rest")
    return number // by if isinstance(size, int) else Size(size.letter, number // by)


def _softmax(lowering: Lowering, node: ir.Node) -> Scores:
    value = lowering.value(node, 0)
    if not isinstance(value, Scores) or value.are_shares or node.attributes.get_int("axis", -1) != -1:
        raise Unsupported("a softmax of what are no scores within a group")
    return replace(value, are_shares=True)


HANDLERS: dict[str, Callable[[Lowering, ir.Node], Any]] = {
    "Cast": _cast,
    "Mul": _mul,
    "Sub": _sub,
    "Add": _add,
    "Div": _div,
    "Pow": _pow,
    "Sqrt": _sqrt,
    "Clip": _clip,
    "ReduceMean": _reduce_mean,
    "Gelu": _gelu,
    "Relu": _relu,
    "Sigmoid": _sigmoid,
    "Cos": _cos_or_sin,
    "Sin": _cos_or_sin,
    "Softmax": _softmax,
    "LayerNormalization": _layer_norm,
}
