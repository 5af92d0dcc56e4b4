"""Which kernels TensorRT-RTX runs a stage's matrix products by: read from the compiler's own log.

TensorRT's engine inspector needs a GPU. But a builder whose profiling is detailed logs the list that the inspector would show:
every kernel with the types of what it reads and writes, and the names of the ONNX nodes it has a part in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ..errors import BuildError
from ..precision import ProductPrecision

_BITS = {"Int4": 4, "Int8": 8, "Half": 16, "Float": 32}
_PRECISIONS = {
    ("Float", "Float"): "fp32",
    ("Half", "Half"): "fp16",
    ("Int8", "Int8"): "int8",
    ("Float", "Int8"): "w8",
    ("Float", "Int4"): "w4",
}


class Tensor(NamedTuple):
    """What a kernel reads or writes; -1 in its shape is a size known at run time only."""

    name: str
    shape: tuple[int, ...]
    type: str


class Kernel(NamedTuple):
    """One line of the compiler's list; `nodes` are the ONNX nodes it has a part in."""

    name: str
    inputs: tuple[Tensor, ...]
    constants: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    nodes: frozenset[str]

    @property
    def narrowest(self) -> str:
        """The narrowest type of activations or weights that it reads, single numbers aside; `"other"` if it reads neither."""
        return _narrowest(tensor for tensor in (*self.inputs, *self.constants) if tensor.shape != (1,))


class ExecutedProduct(NamedTuple):
    """How a matrix product is run.

    Attributes:
        kernel: the one that multiplies.
        x: type of the activations it multiplies.
        weight: type the weight is stored in.
        is_fused: whether it reads the weight as it is stored; else a kernel before it widens the weight to memory, every time.
    """

    kernel: str
    x: str
    weight: str
    is_fused: bool

    @property
    def precision(self) -> str:
        """In foveal's terms, as `"int8"`; types that none of them stands for are named as they are."""
        return _PRECISIONS.get((self.x, self.weight), f"{self.x} x {self.weight}")


_KERNEL = re.compile(
    r"Name: (?P<name>.*?), LayerType: .*?, "
    r"Inputs: \[(?P<inputs>.*?)\], Constants: \[(?P<constants>.*?)\], Outputs: \[(?P<outputs>.*?)\], "
    r"TacticName: .*?, StreamId: \d+(, EventId: \d+)?, Metadata: ?(?P<metadata>.*)"
)
_TENSOR = re.compile(r"\{ Name: (?P<name>.*?), Dimensions: \[(?P<shape>[^\]]*)\], .*?Datatype: (?P<type>\w+)")
_NODE = re.compile(r"\[ONNX Layer: ([^\]|]*?)(?: \|[^\]]*)?\]")  # "node", or "node of a function | its call (function)"


def read_kernels(log: Iterable[str]) -> tuple[Kernel, ...]:
    """The kernels of an engine, in the order they run, out of all that was logged while it was built.

    Raises:
        BuildError: the log has no list of them, or words it in a way unknown here.
    """
    lists = [text for text in log if text.startswith("Layers:\n")]
    if len(lists) != 1:
        raise BuildError(
            f"the compiler's log has {len(lists)} lists of kernels, expected 1; "
            "build with a verbose logger and detailed profiling, or teach export/rtx_layers.py the log of this tensorrt_rtx"
        )
    lines = lists[0].partition("\n\n")[0].splitlines()[1:]
    return tuple(kernel for kernel in map(_kernel, lines) if kernel.outputs)  # the others make streams wait for each other


def _kernel(line: str) -> Kernel:
    found = _KERNEL.fullmatch(line)
    if found is None:
        raise BuildError(
            f'the compiler\'s log lists a kernel as "{line[:200]}", expected "Name: ..., LayerType: ..., Inputs: [...], ..."; '
            "teach export/rtx_layers.py the log of this tensorrt_rtx"
        )
    inputs, constants, outputs = (_tensors(found[group]) for group in ("inputs", "constants", "outputs"))
    return Kernel(found["name"], inputs, constants, outputs, frozenset(_NODE.findall(found["metadata"])))


def _tensors(text: str) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(found["name"], tuple(int(size) for size in found["shape"].split(",") if size), found["type"])
        for found in _TENSOR.finditer(text)
    )


def executed_products(kernels: Sequence[Kernel], products: Sequence[ProductPrecision]) -> tuple[ExecutedProduct, ...]:
    """How an engine runs each of its stage's products.

    Raises:
        BuildError: no kernel multiplies by a product's weight, or several do.
    """
    columns = {_node(product): product.columns for product in products}
    executed = []
    for product in products:
        having = [kernel for kernel in kernels if _node(product) in kernel.nodes]
        found = [(kernel, weight) for kernel in having if (weight := _weight(kernel, product, columns)) is not None]
        if len(found) != 1:
            shape, names = [product.rows, product.columns], ", ".join(kernel.name for kernel in having) or "none"
            raise BuildError(
                f"{len(found)} kernels multiply by the weight {shape} of {_node(product)}, expected 1 "
                f"of those with a part in it: {names}; teach export/rtx_layers.py what became of it"
            )
        executed.append(_executed(kernels, *found[0]))
    return tuple(executed)


def _node(product: ProductPrecision) -> str:
    return f"{product.product}/MatMul"


def _weight(kernel: Kernel, product: ProductPrecision, columns: dict[str, int]) -> Tensor | None:
    """What a kernel reads that has the shape of a product's weight. Kernels that only scale the product have no such thing.

    Products of the same input may be one kernel's: then their weights stand side by side.
    """
    together = sum(columns.get(node, 0) for node in kernel.nodes)
    shapes = ((product.rows, product.columns), (product.rows, together))
    return next((tensor for tensor in (*kernel.constants, *kernel.inputs) if tensor.shape in shapes), None)


def _executed(kernels: Sequence[Kernel], kernel: Kernel, weight: Tensor) -> ExecutedProduct:
    x = _narrowest(tensor for tensor in kernel.inputs if tensor != weight)  # a residual that it adds may be wider
    if weight in kernel.constants:
        return ExecutedProduct(kernel.name, x, weight.type, True)
    widening = (other for other in kernels if weight.name in {tensor.name for tensor in other.outputs})
    return ExecutedProduct(kernel.name, x, _narrowest(tensor for other in widening for tensor in other.constants), False)


def _narrowest(tensors: Iterable[Tensor]) -> str:
    return min((tensor.type for tensor in tensors if tensor.type in _BITS), key=_BITS.__getitem__, default="other")
