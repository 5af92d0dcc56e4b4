"""The matrix products of a stage graph: what is calibrated, and what precision is about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

Floats = npt.NDArray[np.float32]
_RESAMPLING = ("Shorten", "Lengthen")


@dataclass(frozen=True)
class Product:
    """`y = x @ weight (+ bias)`: x `[..., K]`, weight `[K, N]` of the graph's own, named after its place in the stage."""

    name: str
    matmul: ir.Node
    bias_add: ir.Node | None

    @property
    def x(self) -> ir.Value:
        """What is multiplied, `[..., K]`."""
        return _given(self.matmul.inputs[0])

    @property
    def raw(self) -> ir.Value:
        """The product before its bias, `[..., N]`."""
        return self.matmul.outputs[0]

    @property
    def y(self) -> ir.Value:
        """The product with its bias, `[..., N]`."""
        return self.raw if self.bias_add is None else self.bias_add.outputs[0]

    @property
    def weight(self) -> Floats:
        """`[K, N]`, a view of the graph's own."""
        value = _given(_weight_of(self.matmul))
        array: Floats = np.asarray(value.const_value)
        return array if value is self.matmul.inputs[1] else array.T

    @property
    def bias(self) -> ir.Value | None:
        """The bias `[N]`."""
        return None if self.bias_add is None else bias_of(self.bias_add)


def expose_products(model: ir.Model, stage: str) -> None:
    """Inline the resampling ops that have weights of their own, so that their products stand in the stage's graph too."""
    InlinePass(lambda function: function.name in _RESAMPLING and _has_product(function))(model)
    for node in model.graph:
        if node.name is not None and node.name.startswith(_RESAMPLING):
            node.name = f"{stage}/{node.name}/{node.op_type}"
            for value in node.outputs:
                if not value.is_graph_output():
                    value.name = f"{node.name}/{value.name}"  # engines have inputs of their own, of names such as `rows`


def find_products(model: ir.Model) -> list[Product]:
    """All products with a constant weight, in dataflow order."""
    return [
        Product((node.name or "").removesuffix("/MatMul"), node, bias_add_of(node))
        for node in model.graph
        if node.op_type == "MatMul" and _weight_of(node) is not None
    ]


class HeadCounts(NamedTuple):
    """How many heads queries have, and how many keys and values have each."""

    heads: int
    kv_heads: int

    def keys_and_values(self, qkv: Floats) -> tuple[Floats, Floats]:
        """Those of packed rows `[rows, (H + 2 Hkv) Dh]`, `[rows, Hkv Dh]` each."""
        width = qkv.shape[1] // (self.heads + 2 * self.kv_heads) * self.kv_heads
        return qkv[:, -2 * width : -width], qkv[:, -width:]


@dataclass(frozen=True)
class PackedHeads:
    """Queries, keys and values of a cached attention, `[B, L, (H + 2 Hkv) Dh]`, and how many there are of each."""

    qkv: ir.Value
    counts: HeadCounts


def find_attentions(model: ir.Model, stage: str) -> dict[str, PackedHeads]:
    """What every cached attention gets, as `"4/attention/0"` for the first; layers without attention are not counted."""
    calls = enumerate(cached_attentions(model))
    return {f"{stage}/attention/{index}": PackedHeads(_given(node.inputs[0]), head_counts(node)) for index, node in calls}


def cached_attentions(model: ir.Model) -> list[ir.Node]:
    """The `CachedAttention` nodes, in the order of their layers."""
    return [node for node in model.graph if node.op_type == "CachedAttention"]


def head_counts(node: ir.Node) -> HeadCounts:
    """Of a `CachedAttention` node: without `kv_heads`, keys and values have as many heads as queries."""
    heads = node.attributes["heads"].as_int()
    return HeadCounts(heads, node.attributes["kv_heads"].as_int() if "kv_heads" in node.attributes else heads)


def _has_product(function: ir.Function) -> bool:
    return any(node.op_type == "MatMul" and node.inputs[1] in function.inputs for node in function)


def _weight_of(matmul: ir.Node) -> ir.Value | None:
    """The matrix of the graph's own that is multiplied by, directly or, where it is tied to the token table, transposed.

    Tables of more dimensions (the official Hourglass has them for distances) are no weights.
    """
    value = matmul.inputs[1]
    producer = None if value is None else value.producer()
    if producer is not None and producer.op_type == "Transpose":
        value = producer.inputs[0]
    is_matrix = value is not None and value.is_initializer() and value.shape is not None and len(value.shape) == 2
    return value if is_matrix else None


def bias_add_of(matmul: ir.Node) -> ir.Node | None:
    """The node that adds a constant vector to this product and is its only reader."""
    consumers = list(matmul.outputs[0].consumers())
    if len(consumers) != 1 or consumers[0].op_type != "Add" or matmul.outputs[0].is_graph_output():
        return None
    return consumers[0] if any(_is_vector(value) for value in consumers[0].inputs) else None


def bias_of(add: ir.Node) -> ir.Value:
    """The constant vector `[N]` of such a node."""
    return next(value for value in add.inputs if value is not None and _is_vector(value))


def _is_vector(value: ir.Value | None) -> bool:
    return value is not None and value.is_initializer() and value.shape is not None and len(value.shape) == 1


def _given(value: ir.Value | None) -> ir.Value:
    if value is None:
        raise TypeError("a matrix product lacks an input; the graph was not written by foveal")
    return value
