"""Write precisions into a stage graph, in standard ONNX that ONNX Runtime and strongly typed TensorRT read alike.

    int8     QuantizeLinear -> DequantizeLinear on the input, DequantizeLinear on int8 weights (one scale per column)
    w8       DequantizeLinear on the same weights
    w4       DequantizeLinear on int4 weights (one scale per block of rows of a column)
    fp16     casts around matrix products and attention (`export/write_fp16.py`)

All symmetric: TensorRT takes no zero points. int8 is not in blocks: TensorRT-RTX widens those to memory in every step, and
TensorRT 10.3 has blocks for int4 only (`IDequantizeLayer` in its NvInfer.h).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ...calibration.calibrate import Calibration
from ...calibration.graph_files import load_graph
from ...calibration.products import Product, cached_attentions, expose_products, find_attentions, find_products
from ...calibration.ranges import ProductRanges
from ...errors import CalibrationError
from ...precision import INTEGERS, CacheScale, Plan, ProductPrecision
from ..graphs.change_dialect import change_dialect
from ..graphs.dialect import MODERN, Dialect
from ..graphs.nodes import constant, insert_before
from ..graphs.saving import save_graph
from . import quantise
from .write_embedding import table_bytes, write_embedding
from .write_fp16 import QKV, attention_is_safe, reason_for_fp32, write_fp16

HEAD = "/exit/logits"


class WrittenStage(NamedTuple):
    """What became of a stage.

    Attributes:
        weight_bytes: of its graph.
        table_bytes: those of them that are looked up by row.
        cache_dtype: of its graph's caches.
        products: each with what was asked and obtained.
        cache_scales: by layer, for engines that keep int8 caches; empty where caches are to stay as the graph has them.
    """

    weight_bytes: int
    table_bytes: int
    cache_dtype: Literal["float32", "float16"]
    products: tuple[ProductPrecision, ...]
    cache_scales: tuple[CacheScale, ...]


def write_precision(
    source: Path, target: Path, stage: str, plan: Plan, calibration: Calibration | None, dialect: Dialect = MODERN
) -> WrittenStage:
    """Rewrite the fp32 stage graph `source` to `target` as planned.

    Args:
        source: of any dialect.
        target: written in `dialect`.
        stage: the stage's name.
        plan: what its products are to become.
        calibration: what is known of its activations.
        dialect: of the graph that is written.

    Raises:
        CalibrationError: int8 or fp16 without the ranges of a product.
    """
    model = load_graph(source)
    expose_products(model, stage)
    products = find_products(model)
    outcome = [_decided(product, stage, plan, calibration) for product in products]
    obtained = {decided.product: decided.obtained for decided in outcome}
    for product in products:
        precision = obtained[product.name]
        if precision == "int8":
            _write_int8(product, _ranges(calibration, product.name, precision))
        elif precision == "w8":
            product.matmul.replace_input_with(1, _by_column(product, product.weight))
        elif precision == "w4":
            _write_w4(product, calibration)
    half = [product for product in products if obtained[product.name] == "fp16"]
    attention = _attention_is_half(model, obtained, calibration)
    scales = _cache_scales(model, stage, plan, obtained, calibration)
    if half:
        write_fp16(model, half, attention)
    if plan.embedding:
        write_embedding(model, plan.of_stage(stage))
    RemoveUnusedNodesPass()(model)
    change_dialect(model, dialect)  # int4 and added masks change what a dialect says
    weight_bytes = save_graph(model, target)
    return WrittenStage(weight_bytes, table_bytes(model), "float16" if attention else "float32", tuple(outcome), scales)


def _decided(product: Product, stage: str, plan: Plan, calibration: Calibration | None) -> ProductPrecision:
    """What the product becomes, with the reason where that is not what was asked."""
    rows, columns = product.weight.shape
    asked = plan.of_product(stage, product.name)
    if product.name.endswith(HEAD) and not plan.head:
        asked = "fp32"
    decided = ProductPrecision(product=product.name, rows=rows, columns=columns, asked=asked, obtained=asked)
    reason = ""
    if asked == "w4" and quantise.block_for(rows) is None:
        reason = f"{rows} rows are no multiple of {quantise.SMALLEST_BLOCK}, the smallest block"
    elif asked == "fp16":
        reason = reason_for_fp32(product, _ranges(calibration, product.name, asked).ranges)
    return msgspec.structs.replace(decided, obtained="fp32", reason=reason) if reason else decided


class _Known(NamedTuple):
    """A product's ranges, and the magnitude that 127 stands for in its int8 input."""

    ranges: ProductRanges
    threshold: float


def _ranges(calibration: Calibration | None, product: str, asked: str) -> _Known:
    if calibration is None or product not in calibration.products:
        raise CalibrationError(
            f"{product} was asked to be {asked}, for which its activations must be known; "
            "give text: calibration=[...], or --calibration FILE"
        )
    return _Known(calibration.products[product], calibration.threshold(product))


def _attention_is_half(model: ir.Model, obtained: dict[str, str], calibration: Calibration | None) -> bool:
    """Whether attention and caches are fp16: where every `qkv` is, and no score can overflow."""
    names = [name for name in obtained if name.endswith(QKV)]
    if calibration is None or not names or not _caches_are_attentions(model) or any(obtained[name] != "fp16" for name in names):
        return False
    head_dim = next(value.shape[3] for value in model.graph.inputs if value.name == "past_key_values.0.key" and value.shape)
    return isinstance(head_dim, int) and attention_is_safe(head_dim, names, calibration)


def _caches_are_attentions(model: ir.Model) -> bool:
    """Whether all the stage remembers are keys and values of `CachedAttention`: other caches stay fp32."""
    past = [value for value in model.graph.inputs if (value.name or "").startswith("past_key_values.")]
    return len(past) == 2 * len(cached_attentions(model))


def _cache_scales(
    model: ir.Model, stage: str, plan: Plan, obtained: dict[str, str], calibration: Calibration | None
) -> tuple[CacheScale, ...]:
    """Scales of int8 caches, if the plan wants them, every `qkv` has integers, and the text's keys and values are known."""
    names = [name for name in obtained if name.endswith(QKV)]
    has_integers = bool(names) and all(obtained[name] in INTEGERS for name in names) and _caches_are_attentions(model)
    if plan.cache != "auto" or calibration is None or not has_integers:
        return ()
    seen = [calibration.caches[name] for name in find_attentions(model, stage)]
    step = quantise.INT8_MAX
    return tuple(CacheScale(key=(s.key_absmax or 1.0) / step, value=(s.value_absmax or 1.0) / step) for s in seen)


def _write_int8(product: Product, known: _Known) -> None:
    ranges, threshold, weight = known.ranges, known.threshold, product.weight
    clip = threshold / max(float(ranges.absmax.max()), threshold)
    norm = _own_norm(product)
    scales = None if norm is None else quantise.migration(weight, ranges.absmax, ranges.mean_square, clip)
    if norm is not None and scales is not None:
        _divide_norm(norm, scales)
        weight = weight * scales[:, None]
        threshold = float((ranges.absmax / scales).max()) * clip
    step = np.float32(threshold / quantise.INT8_MAX)
    name, matmul = product.name, product.matmul
    x_scale, zero = constant(matmul, f"{name}/x_scale", step), constant(matmul, f"{name}/zero", np.int8(0))
    (x8,) = insert_before(matmul, "QuantizeLinear", [product.x, x_scale, zero], f"{name}/quantize")
    (x,) = insert_before(matmul, "DequantizeLinear", [x8, x_scale, zero], f"{name}/dequantize")
    matmul.replace_input_with(0, x)
    matmul.replace_input_with(1, _by_column(product, weight))


def _by_column(product: Product, weight: quantise.Floats) -> ir.Value:
    """A weight as int8 with a scale per column, widened."""
    name, matmul, quantised = product.name, product.matmul, quantise.by_column(weight)
    values = constant(matmul, f"{name}/weight_int8", quantised.values)
    scales = constant(matmul, f"{name}/weight_scale", quantised.scales)
    (w,) = insert_before(matmul, "DequantizeLinear", [values, scales], f"{name}/weight", {"axis": 1})
    return w


def _write_w4(product: Product, calibration: Calibration | None) -> None:
    weight, name, matmul = product.weight, product.name, product.matmul
    block = quantise.block_for(weight.shape[0]) or weight.shape[0]
    ranges = None if calibration is None else calibration.products.get(name)
    quantised = quantise.by_block(weight, block, None if ranges is None else ranges.mean_square)
    integers = constant(matmul, f"{name}/weight_int4", quantised.values, ir.DataType.INT4)
    scales = constant(matmul, f"{name}/weight_scale", quantised.scales)
    (w,) = insert_before(matmul, "DequantizeLinear", [integers, scales], f"{name}/weight", {"axis": 0, "block_size": block})
    matmul.replace_input_with(1, w)


def _own_norm(product: Product) -> ir.Node | None:
    """The layer norm that feeds this product and nothing else, so that scales may move into it."""
    producer = product.x.producer()
    is_own = producer is not None and producer.op_type == "LayerNormalization" and len(list(product.x.uses())) == 1
    return producer if is_own else None


def _divide_norm(norm: ir.Node, scales: quantise.Floats) -> None:
    for index, value in enumerate(_parameters(norm), start=1):
        norm.replace_input_with(index, constant(norm, f"{norm.name}/smoothed_{index}", value / scales))


def _parameters(norm: ir.Node) -> Sequence[quantise.Floats]:
    return [np.asarray(value.const_value) for value in norm.inputs[1:] if value is not None]
