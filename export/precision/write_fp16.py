"""Half precision in a stage graph: matrix products, GELU and attention; norms and the residual stream stay fp32.

What would overflow stays fp32 too, by the calibrated ranges. The caches are fp16 where attention is. Softmax has no precision
of its own in the graph: it is inside `Attention`, whose `softmax_precision` TensorRT's parser refuses.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx_ir as ir

from ...calibration.calibrate import Calibration
from ...calibration.products import Product, cached_attentions
from ...calibration.ranges import ProductRanges
from ..graphs.functions import MASK
from ..graphs.nodes import caches_of, constant, insert_before

LIMIT = 32_752.0
"""Largest magnitude trusted to fp16, whose largest number is 65,504: other text may go twice as far as the calibration's."""
QKV = "/attention/qkv"
HALVED = "/fp16"
"""How the names of nodes that cast to half precision end."""


def reason_for_fp32(product: Product, ranges: ProductRanges) -> str:
    """Why a product must stay fp32; empty if it need not."""
    seen = {
        "its input": float(ranges.absmax.max()),
        "its output": ranges.output_absmax,
        "its weight": float(np.abs(product.weight).max()),
    }
    return "; ".join(f"{what} reaches {value:,.0f}, more than {LIMIT:,.0f}" for what, value in seen.items() if value > LIMIT)


def attention_is_safe(head_dim: int, products: Iterable[str], calibration: Calibration) -> bool:
    """Whether queries times keys of these `qkv` products can't overflow: `head_dim ** 0.5 * absmax ** 2` bounds the scores."""
    largest = max(calibration.products[name].output_absmax for name in products)
    return float(head_dim**0.5 * largest**2) <= LIMIT


def write_fp16(model: ir.Model, products: Sequence[Product], with_attention: bool) -> None:
    """Turn these products, and if asked the stage's attention and caches, to fp16."""
    nodes: dict[ir.Node, Sequence[int]] = {}  # and which of their inputs are cast
    for product in products:
        product.matmul.replace_input_with(1, constant(product.matmul, f"{product.name}/weight", product.weight))
        nodes[product.matmul] = (0, 1)
        if product.bias_add is not None:
            nodes[product.bias_add] = (0, 1)
        nodes |= {gelu: (0,) for gelu in product.y.consumers() if gelu.op_type == "Gelu"}
    if with_attention:
        attentions = cached_attentions(model)
        _add_masks(attentions)
        nodes |= dict.fromkeys(attentions, (0, MASK))
        for cache in caches_of(model):
            cache.dtype = ir.DataType.FLOAT16
    casts: dict[ir.Value, ir.Value] = {}
    for node in [node for node in model.graph if node in nodes]:
        for index in nodes[node]:
            _halve_input(node, index, nodes, casts)
        for output in _computed(node):
            output.dtype = ir.DataType.FLOAT16
    for node in nodes:
        for output in _computed(node):
            _widen_for_others(model, output, nodes)


def _computed(node: ir.Node) -> Sequence[ir.Value]:
    """What a node computes; the caches that attention also gives are graph outputs and stay fp16."""
    return node.outputs[:1]


def _add_masks(attentions: Sequence[ir.Node]) -> None:
    """Let masks be added to the scores: 0, or what hides any score that is safe and keeps the sum finite.

    TensorRT-RTX 1.7 fails on fp16 attention of several rows under a bool mask where the heads' width is no multiple of 8, and
    elsewhere runs seven more kernels for one.
    """
    added: dict[ir.Value | None, ir.Value] = {}
    for node in attentions:
        mask = node.inputs[MASK]
        if mask not in added:
            name = f"{node.name}/mask"
            choices = [constant(node, f"{name}/shown", np.float32(0)), constant(node, f"{name}/hidden", np.float32(-LIMIT))]
            (added[mask],) = insert_before(node, "Where", [mask, *choices], name, dtype=ir.DataType.FLOAT)
        node.replace_input_with(MASK, added[mask])


def _halve_input(node: ir.Node, index: int, nodes: dict[ir.Node, Sequence[int]], casts: dict[ir.Value, ir.Value]) -> None:
    value = node.inputs[index]
    if value is None or value.producer() in nodes:
        return
    if value not in casts:
        name = f"{value.name}{HALVED}"
        if value.is_initializer():
            casts[value] = constant(node, name, np.asarray(value.const_value).astype(np.float16))
        else:
            (casts[value],) = insert_before(node, "Cast", [value], name, {"to": ir.DataType.FLOAT16}, dtype=ir.DataType.FLOAT16)
            casts[value].shape = value.shape
    node.replace_input_with(index, casts[value])


def _widen_for_others(model: ir.Model, value: ir.Value, nodes: dict[ir.Node, Sequence[int]]) -> None:
    """Give readers that are not fp16 themselves, and the graph's output, an fp32 copy."""
    others = [(node, index) for node, index in value.uses() if node not in nodes]
    if not others and not value.is_graph_output():
        return
    producer = value.producer()
    cast = ir.Node("", "Cast", [value], attributes=[ir.AttrInt64("to", ir.DataType.FLOAT)], name=f"{value.name}/fp32")
    (wide,) = cast.outputs
    wide.shape, wide.dtype, wide.name = value.shape, ir.DataType.FLOAT, f"{value.name}/fp32"
    if producer is not None:
        model.graph.insert_after(producer, cast)
    for node, index in others:
        node.replace_input_with(index, wide)
    for index, output in enumerate(model.graph.outputs):
        if output is value:
            wide.name, value.name = value.name, f"{value.name}/fp16"
            model.graph.outputs[index] = wide
