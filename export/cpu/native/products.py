"""Products of rows with weights, in each of the forms that `export/cpu/products.py` writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from .attention import found_in_group, scores_of
from .lowering import Lowering
from .tensors import Array, Tensor, Unsupported
from .values import Rounded, Scaled, Scores


def _matmul(lowering: Lowering, node: ir.Node) -> Any:
    left, right = lowering.value(node, 0), lowering.value(node, 1)
    if isinstance(left, Scores) and isinstance(right, Tensor):
        return found_in_group(lowering, left, right)
    if isinstance(left, Tensor | Scaled) and isinstance(right, Tensor):
        return scores_of(left, right)
    weight = lowering.constant(node, 1)
    if weight.ndim != 2 or weight.dtype != np.float32:
        raise Unsupported(f"a weight of {weight.ndim} dimensions, {weight.dtype}")
    return lowering.product(lowering.tensor(node, 0), lowering.data.floats(weight))


def _matmul_nbits(lowering: Lowering, node: ir.Node) -> Tensor:
    rows, bits = node.attributes["K"].as_int(), node.attributes["bits"].as_int()
    values, scales = lowering.constant(node, 1), lowering.constant(node, 2)
    if bits not in (4, 8) or any(index < len(node.inputs) and node.inputs[index] is not None for index in (3, 4)):
        raise Unsupported(f"{bits} bits, or zeros of their own")
    columns, blocks = values.shape[:2]
    if bits == 4:
        values = np.stack([values & 15, values >> 4], axis=-1)
    signed = (values.reshape(columns, -1)[:, :rows].T.astype(np.int16) - (1 << (bits - 1))).astype(np.int8)
    block = node.attributes["block_size"].as_int()
    by_block = scales.reshape(columns, blocks).T
    weight = lowering.data.integers("w4" if bits == 4 else "w8", signed, by_block, block)
    return lowering.product(lowering.tensor(node, 0), weight, bias=_bias(lowering, node, 5))


def _quantize(lowering: Lowering, node: ir.Node) -> Rounded:
    scale, zero = lowering.constant(node, 1), lowering.constant(node, 2)
    if scale.size != 1 or zero.dtype != np.uint8 or int(zero.reshape(-1)[0]) != 128:
        raise Unsupported("rounding otherwise than around 128 by one scale")
    return Rounded(lowering.tensor(node, 0), float(scale.reshape(-1)[0]))


def _matmul_integer(lowering: Lowering, node: ir.Node) -> Tensor:
    x, values, x_scale, scales = lowering.value(node, 0), *(lowering.constant(node, index) for index in (1, 2, 3))
    if not isinstance(x, Rounded) or float(x_scale.reshape(-1)[0]) != x.scale:
        raise Unsupported("integers that are not rounded rows")
    if not (lowering.constant(node, 4) == 128).all():
        raise Unsupported("rows rounded around another number than 128")
    signed = _signed(lowering, node, values)
    scales = np.broadcast_to(scales.reshape(1, -1), (1, values.shape[1]))
    weight = lowering.data.integers("int8", signed, scales)
    return lowering.product(x.x, weight, x.scale, _bias(lowering, node, 6))


def _signed(lowering: Lowering, node: ir.Node, values: Array) -> Array:
    """Weights around 0."""
    has_zeros = len(node.inputs) > 5 and node.inputs[5] is not None
    if values.dtype == np.int8 and not has_zeros:
        return values
    if values.dtype != np.uint8 or not has_zeros or not (lowering.constant(node, 5) == 128).all():
        raise Unsupported(f"weights of {values.dtype}, neither around 0 nor around 128")
    return (values.astype(np.int16) - 128).astype(np.int8)


def _bias(lowering: Lowering, node: ir.Node, index: int) -> Array | None:
    return lowering.constant(node, index) if index < len(node.inputs) and node.inputs[index] is not None else None


HANDLERS: dict[str, Callable[[Lowering, ir.Node], Any]] = {
    "MatMul": _matmul,
    "MatMulNBits": _matmul_nbits,
    "QuantizeLinear": _quantize,
    "MatMulIntegerToFloat": _matmul_integer,
}
