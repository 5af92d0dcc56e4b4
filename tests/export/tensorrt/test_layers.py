"""The list of layers, as it is worded, is read right; anything else is refused."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from foveal.errors import BuildError, BundleError
from foveal.export.tensorrt.layers import (
    EngineLayers,
    ExecutedProduct,
    Kernel,
    Tensor,
    executed_products,
    layers_listed,
    layers_path,
    read_layers,
)
from foveal.precision import ProductPrecision


def tensor(name: str, kind: str, *shape: int) -> str:
    """A tensor in the compiler's words."""
    sizes = ",".join(map(str, shape))
    return f"{{ Name: {name}, Dimensions: [{sizes}], Strides: [1], StrideOrder: [0], Datatype: {kind}, Format: (Linear) Row }}"


def line(
    name: str, inputs: str = "", constants: str = "", outputs: str = "", nodes: str = "", more: str = "", tactic: str = ""
) -> str:
    """A kernel in the compiler's words."""
    lists = ", ".join(
        f"{what}: [{' ' + given if given else ''}]"
        for what, given in (("Inputs", inputs), ("Constants", constants), ("Outputs", outputs))
    )
    ran = f"TacticName: {tactic or name + '_0x12345678'}, StreamId: 0{more}, Metadata: {nodes}"
    return f"Name: {name}, LayerType: kgen, {lists}, {ran}"


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
    (kernel,) = layers_listed(listed(line("fc", X, tensor("w", "Int8", 8, 16), Y, NODES)))
    assert kernel == Kernel(
        name="fc",
        type="kgen",
        tactic="fc_0x12345678",
        inputs=(Tensor("x", (-1, 8), "Float"),),
        constants=(Tensor("w", (8, 16), "Int8"),),
        outputs=(Tensor("y", (-1, 16), "Float"),),
        nodes=("1/up/MatMul", "Shorten/y"),
    )
    assert kernel.narrowest == "Int8"


@pytest.mark.parametrize(
    ("name", "tactic", "label"),
    [
        ("_gemv_mha_v1_myl0_4", "_gemv_mha_v1_0xf45f28f6b05aa048_vec", "gemv_mha_v1"),
        ("__myl_CastMulCastFc_myl0_2", "", "CastMulCastFc"),
        ("4/up/MatMul_myl0_2", "__myelin_CASK_STUB", "gemm"),
        ("4/up/MatMul_myl0_2", "", "gemm"),
        ("4/up/MatMul", "sm80_xmma_gemm_f16f16_tn", "sm80_xmma_gemm_f16f16_tn"),
    ],
)
def test_kernels_have_names_for_people(name: str, tactic: str, label: str) -> None:
    """Without numbers and hashes; where the implementation is chosen later, the kind of layer."""
    assert Kernel(name=name, type="gemm", tactic=tactic).label == label


def test_kernels_belong_to_profiles() -> None:
    """A region is that of the profile that any of its tensors names, whatever the region's number; the first is not named."""
    one = tensor("x [profile 1]", "Float", -1, 8)
    lines = [
        line("a_myl0_1", X, "", Y),
        line("b_myl2_1", one, "", Y),
        line("c_myl2_2", X, "", Y),
        line("d [profile 1]", X, "", Y),
    ]
    kernels = layers_listed(listed(*lines))
    assert [(kernel.name, kernel.profile) for kernel in kernels] == [
        ("a_myl0_1", 0),
        ("b_myl2_1", 1),
        ("c_myl2_2", 1),
        ("d [profile 1]", 1),
    ]
    assert len(EngineLayers(network={}, kernels=kernels).of_profile(1)) == 3


def test_what_only_makes_streams_wait_is_no_kernel() -> None:
    """It has no nodes, and a number of its own."""
    kernels = layers_listed(listed(line("shape_call"), line("wait", more=", EventId: 10"), line("fc", X, "", Y)))
    assert [kernel.name for kernel in kernels] == ["fc"]


def test_sizes_that_are_brought_to_the_device_are_no_kernel() -> None:
    """They are listed in words of their own, of graphs that compute with the size of an input."""
    copied = (
        "Name: [ShapeHostToDeviceCopy 0], LayerType: ShapeHostToDevice, Inputs: [], Outputs: [ { Name: sub, Location: Device, "
        "Dimensions: [], Datatype: Int64, Format: Format not available due to dynamic shapes }], ParameterType: ShapeH2D, "
        "shapeValues0: [-39], TacticValue: 0x0000000000000000, StreamId: 0, Metadata: "
    )
    assert [kernel.name for kernel in layers_listed(listed(copied, line("fc", X, "", Y)))] == ["fc"]


def test_a_weight_that_is_widened_apart() -> None:
    """What counts is how it is stored; both kernels are named."""
    widen = line("cast", "", tensor("w8", "Int8", 8, 16), tensor("w", "Float", 8, 16), "[ONNX Layer: 1/up/weight]")
    multiply = line("fc", X + ", " + tensor("w", "Float", 8, 16), "", Y, NODES)
    (found,) = executed_products(layers_listed(listed(widen, multiply)), [UP])
    assert found == ExecutedProduct("fc", "Float", "Int8", "cast")
    assert (found.precision, found.is_fused, str(found)) == ("w8", False, "cast + fc")


def test_a_kernel_that_only_scales_the_product_does_not_multiply() -> None:
    """It has the product's node in it, and no weight; a residual beside the activations may be wider than they."""
    x = tensor("r", "Float", -1, 16) + ", " + tensor("x", "Int8", -1, 8)
    lines = [line("fc", x, tensor("w", "Int8", 8, 16), Y, NODES), line("scale", Y, tensor("s", "Float", 1, 16), Y, NODES)]
    (found,) = executed_products(layers_listed(listed(*lines)), [UP])
    assert (found.kernel, found.precision, found.is_fused) == ("fc", "int8", True)


@pytest.mark.parametrize("shape", [(1, 8, 16), (8, 18), (16, 32), (1, 8, 24)])
def test_weights_as_kernels_take_them(shape: tuple[int, ...]) -> None:
    """A batch of one, or padded."""
    (found,) = executed_products(layers_listed(listed(line("fc", X, tensor("w", "Float", *shape), Y, NODES))), [UP])
    assert found.precision == "fp32"


def test_products_of_one_kernel() -> None:
    """Two of the same input, their weights side by side."""
    down = ProductPrecision(product="1/down", rows=8, columns=4, asked="fp16", obtained="fp16")
    nodes = NODES + "[ONNX Layer: 1/down/MatMul]"
    both = line("both", tensor("x", "Half", -1, 8), tensor("w", "Half", 8, 20), tensor("y", "Half", -1, 20), nodes)
    assert [found.precision for found in executed_products(layers_listed(listed(both)), [UP, down])] == ["fp16", "fp16"]


def test_types_that_are_no_precision_are_named() -> None:
    """So that a failing comparison says what was found."""
    (found,) = executed_products(layers_listed(listed(line("fc", X, tensor("w", "Half", 8, 16), Y, NODES))), [UP])
    assert found.precision == "Float x Half"


def test_a_kernel_that_casts_its_input_itself() -> None:
    """It reads fp32 and multiplies in half precision, for the graph has a cast there, and its network is strongly typed."""
    cast = NODES + "[ONNX Layer: 1/x/fp16]"
    (found,) = executed_products(layers_listed(listed(line("fc", X, tensor("w", "Half", 8, 16), Y, cast))), [UP])
    assert found.precision == "fp16"
    (found,) = executed_products(layers_listed(listed(line("fc", X, tensor("w", "Int8", 8, 16), Y, cast))), [UP])
    assert found.precision == "w8"


@pytest.mark.parametrize("times", [0, 2])
def test_a_product_must_be_multiplied_once(times: int) -> None:
    """Else there is something about the list that is not understood."""
    fc = line("fc", X, tensor("w", "Int8", 8, 16), Y, NODES)
    scale = line("scale", Y, "", Y, NODES)
    message = rf"^{times} kernels multiply by the weight \[8, 16\] of 1/up/MatMul, expected 1 .*: (fc, fc, )?scale; teach"
    with pytest.raises(BuildError, match=message):
        executed_products(layers_listed(listed(*[fc] * times, scale)), [UP])


def test_a_log_without_a_list() -> None:
    """Profiling was not detailed, or the logger not verbose."""
    with pytest.raises(BuildError, match=r"has 0 lists of layers, expected 1; build with a verbose logger"):
        layers_listed(["Engine generation completed"])


def test_a_list_in_other_words() -> None:
    """As another version may have."""
    with pytest.raises(BuildError, match=r'lists a layer as "Kernel fc", expected "Name: .*teach export/tensorrt/layers.py'):
        layers_listed(listed("Kernel fc"))


def test_the_file_of_layers(tmp_path: Path) -> None:
    """It lies beside the engine, and reads as it was written."""
    layers = EngineLayers(network={"SCATTER": 2}, kernels=layers_listed(listed(line("fc", X, "", Y))))
    path = layers_path(tmp_path / "1.pre.engine")
    assert path.name == "1.pre.layers.json"
    path.write_bytes(msgspec.json.encode(layers))
    assert read_layers(tmp_path / "1.pre.engine") == layers
    with pytest.raises(BundleError, match=r"16.layers.json is no list of layers: .*No such file.*; build the engines again"):
        read_layers(tmp_path / "16.engine")
