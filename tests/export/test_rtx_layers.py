"""The compiler's list of kernels, as it is worded, is read right; anything else is refused."""

from __future__ import annotations

import pytest

from foveal.errors import BuildError
from foveal.export.rtx_layers import ExecutedProduct, Tensor, executed_products, read_kernels
from foveal.precision import ProductPrecision


def tensor(name: str, kind: str, *shape: int) -> str:
    """A tensor in the compiler's words."""
    sizes = ",".join(map(str, shape))
    return f"{{ Name: {name}, Dimensions: [{sizes}], Strides: [1], StrideOrder: [0], Datatype: {kind}, Format: (Linear) Row }}"


def line(name: str, inputs: str = "", constants: str = "", outputs: str = "", nodes: str = "", more: str = "") -> str:
    """A kernel in the compiler's words."""
    lists = ", ".join(
        f"{what}: [{' ' + given if given else ''}]"
        for what, given in (("Inputs", inputs), ("Constants", constants), ("Outputs", outputs))
    )
    return f"Name: {name}, LayerType: kgen, {lists}, TacticName: {name}_0x1, StreamId: 0{more}, Metadata: {nodes}"


def listed(*lines: str) -> list[str]:
    """What is logged, with the list in its midst."""
    return [
        "Engine generation completed",
        "Layers:\n" + "\n".join(lines) + "\n\nI/O Tensors:\n Name: x, IOMode: Input",
        "Adding",
    ]


X, Y = tensor("x", "Float", -1, 8), tensor("y", "Float", -1, 16)
UP = ProductPrecision(product="1/up", rows=8, columns=16, asked="w8", obtained="w8")
NODES = "[ONNX Layer: 1/up/MatMul][ONNX Layer: Shorten/y | 1/Shorten (Shorten)]"


def test_a_kernel_is_read_whole() -> None:
    """Names, shapes, types, and nodes with and without a function around them."""
    (kernel,) = read_kernels(listed(line("fc", X, tensor("w", "Int8", 8, 16), Y, NODES)))
    assert kernel.name == "fc"
    assert kernel.inputs == (Tensor("x", (-1, 8), "Float"),)
    assert kernel.constants == (Tensor("w", (8, 16), "Int8"),)
    assert kernel.outputs == (Tensor("y", (-1, 16), "Float"),)
    assert kernel.nodes == {"1/up/MatMul", "Shorten/y"}
    assert kernel.narrowest == "Int8"


def test_what_only_makes_streams_wait_is_no_kernel() -> None:
    """It has no nodes, and a number of its own."""
    kernels = read_kernels(listed(line("shape_call"), line("wait", more=", EventId: 10"), line("fc", X, "", Y)))
    assert [kernel.name for kernel in kernels] == ["fc"]


def test_a_weight_that_is_widened_apart() -> None:
    """What counts is how it is stored."""
    widen = line("cast", "", tensor("w8", "Int8", 8, 16), tensor("w", "Float", 8, 16), "[ONNX Layer: 1/up/weight]")
    multiply = line("fc", X + ", " + tensor("w", "Float", 8, 16), "", Y, NODES)
    (found,) = executed_products(read_kernels(listed(widen, multiply)), [UP])
    assert found == ExecutedProduct("fc", "Float", "Int8", False)
    assert found.precision == "w8"


def test_a_kernel_that_only_scales_the_product_does_not_multiply() -> None:
    """It has the product's node in it, and no weight; a residual beside the activations may be wider than they."""
    x = tensor("r", "Float", -1, 16) + ", " + tensor("x", "Int8", -1, 8)
    lines = [line("fc", x, tensor("w", "Int8", 8, 16), Y, NODES), line("scale", Y, tensor("s", "Float", 1, 16), Y, NODES)]
    (found,) = executed_products(read_kernels(listed(*lines)), [UP])
    assert (found.kernel, found.precision, found.is_fused) == ("fc", "int8", True)


def test_products_of_one_kernel() -> None:
    """Two of the same input, their weights side by side."""
    down = ProductPrecision(product="1/down", rows=8, columns=4, asked="fp16", obtained="fp16")
    nodes = NODES + "[ONNX Layer: 1/down/MatMul]"
    both = line("both", tensor("x", "Half", -1, 8), tensor("w", "Half", 8, 20), tensor("y", "Half", -1, 20), nodes)
    assert [found.precision for found in executed_products(read_kernels(listed(both)), [UP, down])] == ["fp16", "fp16"]


def test_types_that_are_no_precision_are_named() -> None:
    """So that a failing comparison says what was found."""
    (found,) = executed_products(read_kernels(listed(line("fc", X, tensor("w", "Half", 8, 16), Y, NODES))), [UP])
    assert found.precision == "Float x Half"


@pytest.mark.parametrize("times", [0, 2])
def test_a_product_must_be_multiplied_once(times: int) -> None:
    """Else there is something about the list that is not understood."""
    fc = line("fc", X, tensor("w", "Int8", 8, 16), Y, NODES)
    scale = line("scale", Y, "", Y, NODES)
    message = rf"^{times} kernels multiply by the weight \[8, 16\] of 1/up/MatMul, expected 1 .*: (fc, fc, )?scale; teach"
    with pytest.raises(BuildError, match=message):
        executed_products(read_kernels(listed(*[fc] * times, scale)), [UP])


def test_a_log_without_a_list() -> None:
    """Profiling was not detailed, or the logger not verbose."""
    with pytest.raises(BuildError, match=r"has 0 lists of kernels, expected 1; build with a verbose logger"):
        read_kernels(["Engine generation completed"])


def test_a_list_in_other_words() -> None:
    """As another version may have."""
    with pytest.raises(BuildError, match=r'lists a kernel as "Kernel fc", expected "Name: .*teach export/rtx_layers.py'):
        read_kernels(listed("Kernel fc"))
