"""Nodes that move nothing: shapes, parts of rows, and the order of their axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from ....contract.program import Copy, Repeat
from .lowering import Lowering
from .tensors import Dimension, Size, Tensor, Unsupported, atoms_of
from .values import Places, RowIndex, Sizes, Turns, Wanted

_WHOLE = np.iinfo(np.int64).max


def _shape(lowering: Lowering, node: ir.Node) -> Sizes:
    value = lowering.value(node, 0)
    if isinstance(value, str):  # a cache, [B, ...]
        return Sizes((Size("B"),)[node.attributes.get_int("start", 0) : node.attributes.get_int("end", 1)])
    dims = value.shape if isinstance(value, np.ndarray) else getattr(value, "dims", None)
    if dims is None:
        raise Unsupported("the shape of what is no tensor")
    return Sizes(tuple(dims)[node.attributes.get_int("start", 0) : node.attributes.get_int("end", len(dims))])


def _constant(lowering: Lowering, node: ir.Node) -> Any:
    for name in ("value_int", "value_ints"):
        if name in node.attributes:
            return np.array(node.attributes[name].value, np.int64)
    for name in ("value_float", "value_floats"):
        if name in node.attributes:
            return np.array(node.attributes[name].value, np.float32)
    return node.attributes["value"].as_tensor().numpy()


def _identity(lowering: Lowering, node: ir.Node) -> Any:
    return lowering.value(node, 0)


def _reshape(lowering: Lowering, node: ir.Node) -> Any:
    value = lowering.value(node, 0)
    if isinstance(value, np.ndarray):
        return value.reshape(lowering.constant(node, 1))
    if isinstance(value, Wanted | Sizes | Places):
        return value
    x = lowering.tensor(node, 0)
    dims = [x.dims[i] if dim == 0 else dim for i, dim in enumerate(lowering.sizes(node, 1))]
    return x.reshaped(_inferred(x.dims, dims))


def _inferred(source: Sequence[Dimension], dims: Sequence[Dimension]) -> list[Dimension]:
    """Dimensions without a -1: it is what the others leave of the source."""
    if -1 not in dims:
        return list(dims)
    at = list(dims).index(-1)
    rest = atoms_of(source)
    numbers = int(np.prod([atom for atom in rest if isinstance(atom, int)], dtype=np.int64))
    letters = [atom.letter for atom in rest if isinstance(atom, Size)]
    for atom in atoms_of([dim for index, dim in enumerate(dims) if index != at]):
        if isinstance(atom, int):
            numbers, remainder = divmod(numbers, atom)
            if remainder:
                raise Unsupported("a reshape that does not come out even")
        elif atom.letter in letters:
            letters.remove(atom.letter)
        else:
            raise Unsupported("a reshape to other sizes than its input has")
    if len(letters) > 1:
        raise Unsupported("a reshape that mixes sequences and firings")
    inferred: Dimension = Size(letters[0], numbers) if letters else numbers
    return [*dims[:at], inferred, *dims[at + 1 :]]


def _transpose(lowering: Lowering, node: ir.Node) -> Any:
    value, perm = lowering.value(node, 0), node.attributes["perm"].as_ints()
    return value.transpose(perm) if isinstance(value, np.ndarray) else lowering.tensor(node, 0).transposed(perm)


def _squeeze(lowering: Lowering, node: ir.Node) -> Any:
    value = lowering.value(node, 0)
    if isinstance(value, np.ndarray):
        return value.reshape(-1)[0] if value.size == 1 else value.squeeze()
    if isinstance(value, Sizes):
        return value
    x = lowering.tensor(node, 0)
    axes = {int(axis) % len(x.dims) for axis in lowering.constant(node, 1).reshape(-1)}
    return x.reshaped([dim for index, dim in enumerate(x.dims) if index not in axes])


def _unsqueeze(lowering: Lowering, node: ir.Node) -> Any:
    value = lowering.value(node, 0)
    axes = [int(axis) for axis in lowering.constant(node, 1).reshape(-1)]
    if isinstance(value, np.ndarray):
        return np.expand_dims(value, tuple(axes))
    if isinstance(value, Sizes):
        return value
    if not isinstance(value, Tensor | RowIndex | Turns):
        raise Unsupported("a new axis of what is no tensor")
    dims, length = list(value.dims), len(value.dims) + len(axes)
    for axis in sorted(axis % length for axis in axes):
        dims.insert(axis, 1)
    return value.reshaped(dims) if isinstance(value, Tensor) else replace(value, dims=tuple(dims))


def _split(lowering: Lowering, node: ir.Node) -> tuple[Tensor, ...]:
    x, axis = lowering.tensor(node, 0), node.attributes.get_int("axis", 0) % len(lowering.tensor(node, 0).dims)
    inner, width = x.axis(axis), x.dims[axis]
    assert isinstance(width, int)
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        lengths = [int(one) for one in lowering.constant(node, 1)]
    else:
        lengths = [width // len(node.outputs)] * len(node.outputs)
    if sum(lengths) != width:
        raise Unsupported("a split into parts that are not all")
    parts = np.split(x.elements, np.cumsum(lengths)[:-1].tolist(), axis=inner)
    return tuple(
        x.with_elements(part, [*x.dims[:axis], length, *x.dims[axis + 1 :]])
        for part, length in zip(parts, lengths, strict=True)
    )


def _slice(lowering: Lowering, node: ir.Node) -> Any:
    starts, ends = (lowering.constant(node, index).reshape(-1) for index in (1, 2))
    x = lowering.tensor(node, 0)
    axes = lowering.constant(node, 3).reshape(-1) if len(node.inputs) > 3 else np.arange(len(starts))
    steps = lowering.constant(node, 4).reshape(-1) if len(node.inputs) > 4 else np.ones(len(starts), np.int64)
    for start, end, axis, step in zip(starts.tolist(), ends.tolist(), axes.tolist(), steps.tolist(), strict=True):
        if start == 0 and end >= _WHOLE // 2 and step == 1:
            continue
        inner, dims = x.axis(axis), list(x.dims)
        elements = x.elements[(slice(None),) * inner + (slice(start, end, step),)]
        dims[axis] = elements.shape[inner]
        x = x.with_elements(elements, dims)
    return x


def _concat(lowering: Lowering, node: ir.Node) -> Any:
    values = [lowering.value(node, index) for index in range(len(node.inputs))]
    if not any(isinstance(value, Tensor) for value in values):
        return Sizes(tuple(one for index in range(len(values)) for one in lowering.sizes(node, index)))
    parts = [lowering.tensor(node, index) for index in range(len(values))]
    axis = node.attributes["axis"].as_int() % len(parts[0].dims)
    if len({part.buffer for part in parts}) > 1:
        parts = _together(lowering, parts)
    angles = {part.angles for part in parts} - {None}
    if len(angles) > 1:
        raise Unsupported("rows that are turned by several angles")
    elements = np.concatenate([part.elements for part in parts], axis=parts[0].axis(axis))
    dims: list[Dimension] = list(parts[0].dims)
    dims[axis] = elements.shape[parts[0].axis(axis)]
    return Tensor(parts[0].buffer, tuple(dims), elements, angles.pop() if angles else None)


def _together(lowering: Lowering, parts: Sequence[Tensor]) -> list[Tensor]:
    """Results that are copied into one, one behind the other."""
    results = [lowering.rows(part) for part in parts]
    widths = [lowering.draft.buffers[result].width for result in results]
    out = lowering.draft.like(results[0], sum(widths))
    placed = []
    for part, result, width, at in zip(parts, results, widths, np.cumsum([0, *widths[:-1]]).tolist(), strict=True):
        lowering.draft.steps.append(Copy(x=result, out=out, width=width, to=at))
        whole = Tensor.of(out, part.dims)
        elements = whole.elements.copy()
        elements["column"] += at
        placed.append(whole.with_elements(elements, part.dims))
    return placed


def _tile(lowering: Lowering, node: ir.Node) -> Tensor:
    x, repeats = lowering.tensor(node, 0), lowering.constant(node, 1).reshape(-1).tolist()
    axes = [index for index, times in enumerate(repeats) if times != 1]
    if not axes:
        return x
    if len(axes) > 1:
        raise Unsupported("a repetition along several axes")
    axis = axes[0]
    inner = x.axis(axis)
    if x.dims[axis] != 1 or any(size != 1 for size in x.elements.shape[:inner]):
        raise Unsupported("a repetition of parts of rows")
    given, count = lowering.rows(x), int(repeats[axis])
    out = lowering.draft.like(given, count * lowering.draft.buffers[given].width)
    dims = list(x.dims)
    dims[axis] = count
    return lowering.made(Repeat(x=given, out=out, count=count), dims)


HANDLERS: dict[str, Callable[[Lowering, ir.Node], Any]] = {
    "Shape": _shape,
    "Constant": _constant,
    "Identity": _identity,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Split": _split,
    "Slice": _slice,
    "Concat": _concat,
    "Tile": _tile,
}
