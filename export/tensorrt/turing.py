"""Graphs for Turing GPUs (compute capability 7.5), for which TensorRT-RTX 1.7.1 compiles no float32 matrix product.

What it refuses there, and what stands in its place:

    int8 products that give fp32     int8 products that give fp16, scaled by a power of two so that no sum can overflow
    fp32 products of activations     the sum of element-wise products: attention of int8 bundles, attention over few rows
    fp32 products with weights       none: such a precision is refused before anything is built
    int4                             none: "the model contains HW-specific datatypes"

The meaning of a graph stays: only the sums of int8 products are rounded, to the 11 bits of fp16. Whether any of it is quick no
GPU has shown. To be removed when TensorRT-RTX has such products, or drops Turing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from ...calibration.products import cached_attentions
from ...errors import ConfigError
from ...precision import Plan, ProductPrecision
from ..graphs.attentions import given_attributes
from ..graphs.dialect import MODERN
from ..graphs.functions import MASK, Mask, summed_attention
from ..graphs.gpu import LoweredStage
from ..graphs.nodes import Attributes, constant, insert_before, replace_value
from .family import Family

TURING = "7.5"
MULTIPLIES = ("fp16", "int8")
"""The precisions of matrix products that are compiled for Turing."""
_LARGEST = 32_768
_INT8_SQUARE = 127 * 127


def builds_for_turing(family: object) -> bool:
    """Whether Turing is among the GPUs that engines are built for."""
    return isinstance(family, Family) and family.library.is_rtx and TURING in family.options.compute_capabilities


def check_turing(plan: Plan, family: object) -> None:
    """Raise ConfigError if a plan asks for what can't be built for the GPUs asked for."""
    asked = {plan.default, *plan.stages.values(), *plan.products.values()}
    if builds_for_turing(family) and not asked <= set(MULTIPLIES):
        _refuse(family, f"got {', '.join(sorted(asked - set(MULTIPLIES)))}")
    if builds_for_turing(family) and not plan.head:
        _refuse(family, "got an output head in fp32")


def check_products(stage: str, products: Sequence[ProductPrecision], family: object) -> None:
    """Raise ConfigError if a product of a stage was written in a precision that can't be built for the GPUs asked for."""
    others = [product for product in products if product.obtained not in MULTIPLIES]
    if builds_for_turing(family) and others:
        first, more = others[0], f" and {len(others) - 1} more" if len(others) > 1 else ""
        why = f" ({first.reason})" if first.reason else ""
        _refuse(family, f'got {first.obtained} of {first.product}{why}{more} in stage "{stage}"')


def _refuse(family: object, got: str) -> None:
    library = family.library if isinstance(family, Family) else "TensorRT-RTX"
    raise ConfigError(
        f"{library} compiles matrix products for compute capability {TURING} only in {' and '.join(MULTIPLIES)}, {got}; "
        f"build from an fp16 or int8 bundle, or leave {TURING} out"
    )


def fit_turing(stage: LoweredStage) -> LoweredStage:
    """A lowered stage without float32 matrix products, where `check_products` has nothing against it."""
    model = ir.from_proto(onnx.load_model_from_string(stage.model))
    ir.external_data.set_base_dir(model.graph, stage.graph.parent)
    _sum_up_attention(model)
    for node in [node for node in model.graph if node.op_type == "MatMul"]:
        if _is_int8(node):
            _give_fp16(node)
        elif ir.DataType.FLOAT16 not in {value.dtype for value in (*node.inputs, *node.outputs) if value is not None}:
            _sum_up(node)
    return stage._replace(model=ir.to_proto(model).SerializeToString(deterministic=True))


def _sum_up_attention(model: ir.Model) -> None:
    attentions = cached_attentions(model)
    if not attentions or _given(attentions[0].inputs[1]).dtype == ir.DataType.FLOAT16:
        return
    mask, opset = _given(attentions[0].inputs[MASK]), model.opset_imports[""]
    kind: Mask = "bool" if mask.dtype == ir.DataType.BOOL else "added"
    function = ir.serde.deserialize_function(summed_attention(opset, kind, opset >= MODERN.opset, given_attributes(model)))
    model.functions[function.identifier()] = function


def _is_int8(matmul: ir.Node) -> bool:
    return all(_op_type(value) == "DequantizeLinear" for value in matmul.inputs)


def _op_type(value: ir.Value | None) -> str:
    producer = None if value is None else value.producer()
    return "" if producer is None else producer.op_type


def _give_fp16(matmul: ir.Node) -> None:
    """`x_scale * w_scale * sum` as `(x_scale * w_scale / small) * (small * sum)`, the second of which is in fp16."""
    name = matmul.name or "MatMul"
    (x, x_scale), (w, w_scale) = (_dequantised(value) for value in matmul.inputs)
    columns, rows = w_scale.size, int(_given(w).shape[0])  # type: ignore[index, arg-type]
    exponent = math.floor(math.log2(_LARGEST / (_INT8_SQUARE * rows)))
    small_x, small_w = np.float16(2.0 ** (exponent // 2)), np.full(columns, 2.0 ** (exponent - exponent // 2), np.float16)
    half_x = _half(matmul, "DequantizeLinear", [x, constant(matmul, f"{name}/fp16_x_scale", small_x)], f"{name}/fp16_x")
    scales = constant(matmul, f"{name}/fp16_w_scale", small_w)
    half_w = _half(matmul, "DequantizeLinear", [w, scales], f"{name}/fp16_w", {"axis": 1})
    product = _half(matmul, "MatMul", [half_x, half_w], name)  # of the same name: layers are found by it
    (wide,) = insert_before(matmul, "Cast", [product], f"{name}/fp16_wide", {"to": ir.DataType.FLOAT}, dtype=ir.DataType.FLOAT)
    back = constant(matmul, f"{name}/fp16_back", x_scale * w_scale * np.float32(2.0**-exponent))
    (scaled,) = insert_before(matmul, "Mul", [wide, back], f"{name}/fp16_scaled", dtype=ir.DataType.FLOAT)
    _replace(matmul, scaled)


def _half(near: ir.Node, op: str, inputs: list[ir.Value], name: str, attributes: Attributes | None = None) -> ir.Value:
    return insert_before(near, op, inputs, name, attributes, dtype=ir.DataType.FLOAT16)[0]


def _dequantised(value: ir.Value | None) -> tuple[ir.Value, npt.NDArray[np.float32]]:
    """The integers that a value is made of, and their scales."""
    producer = _given(value).producer()
    if producer is None:
        raise TypeError("expected integers and scales; the graph was not written by foveal")
    return _given(producer.inputs[0]), np.asarray(_given(producer.inputs[1]).const_value)


def _sum_up(matmul: ir.Node) -> None:
    """`[..., M, K] @ [..., K, N]` as the sum over K of `[..., M, K, 1] * [..., 1, K, N]`."""
    name, fp32 = matmul.name or "MatMul", ir.DataType.FLOAT
    last, second, third = (constant(matmul, f"{name}/axis{axis}", np.array([axis])) for axis in (-1, -2, -3))
    a, b = (_given(value) for value in matmul.inputs)
    (columns,) = insert_before(matmul, "Unsqueeze", [a, last], f"{name}/columns", dtype=fp32)
    (rows,) = insert_before(matmul, "Unsqueeze", [b, third], f"{name}/rows", dtype=fp32)
    (terms,) = insert_before(matmul, "Mul", [columns, rows], f"{name}/terms", dtype=fp32)
    (total,) = insert_before(matmul, "ReduceSum", [terms, second], f"{name}/sum", {"keepdims": 0}, dtype=fp32)
    _replace(matmul, total)


def _replace(matmul: ir.Node, value: ir.Value) -> None:
    graph = matmul.graph
    replace_value(matmul.outputs[0], value)
    if graph is not None:
        graph.remove(matmul, safe=True)


def _given(value: ir.Value | None) -> ir.Value:
    if value is None:
        raise TypeError("a node lacks an input; the graph was not written by foveal")
    return value
