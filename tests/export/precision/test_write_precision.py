"""Precisions in portable graphs: standard ONNX whose meaning is the model with rounded weights, activations and tables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from contracts import check_graphs_are_their_contracts
from precisions import (
    HIERARCHIES,
    LOSSY,
    Precise,
    PrecisionZoo,
    defined_engines,
    distance,
    logits,
    module_path,
    needs_int8_caches,
    needs_opset_24,
    portable_engines,
)
from torch import Tensor

from foveal import CalibrationError
from foveal.bundle import Bundle
from foveal.export.precision.quantise import block_for, by_block, by_column
from foveal.export.precision.write_precision import WrittenStage, write_precision
from foveal.precision import Plan, ProductPrecision

# A value that lies on the border of two steps may fall to either side; ONNX Runtime keeps sums between fp16 nodes in fp32.
TOLERANCE = {"fp16": 3e-3, "int8": 2e-2, "w8": 1e-5, "w4": 1e-5}


@needs_opset_24
@pytest.mark.parametrize("name", HIERARCHIES)
@pytest.mark.parametrize("precision", LOSSY)
@pytest.mark.parametrize("embedding", [False, True], ids=["", "and the tables"])
def test_a_portable_graph_is_the_model_with_rounded_products(
    precision: str, name: str, embedding: bool, precise: PrecisionZoo
) -> None:
    """ONNX Runtime, node by node, against PyTorch with the same roundings: nearly all rows equal to 1e-5, fp16 aside."""
    bundle = precise[name].build(Plan(default=precision, embedding=embedding, cache="fp32"))
    ids = precise[name].ids(2, 70)
    expected = logits(bundle, defined_engines(precise[name], bundle), ids)
    got = logits(bundle, portable_engines(bundle), ids, [1, 1, 40, 1, 27])
    assert distance(got, expected) < TOLERANCE[precision]
    rows = np.abs(got - expected).max(-1) / np.abs(expected).max()
    assert np.median(rows) < (1e-3 if precision == "fp16" else 1e-5)


@pytest.mark.parametrize("name", HIERARCHIES)
@pytest.mark.parametrize("precision", LOSSY)
def test_every_graph_is_its_contract(precision: str, name: str, precise: PrecisionZoo) -> None:
    """Names, types and shapes are those of the fp32 graph but for the caches' dtype; the checker has nothing to say."""
    check_graphs_are_their_contracts(precise[name].build(Plan(default=precision, cache="fp32")))


def weights(bundle: Bundle) -> Iterator[tuple[ProductPrecision, ir.Node]]:
    """Every product that is not fp32, with the node that widens its weight."""
    for entry in bundle.manifest.stages:
        nodes = {node.name: node for node in ir.load(bundle.file(entry.graph)).graph}
        for product in bundle.sidecar("cpu", entry.spec.name).products:
            if product.obtained in ("int8", "w8", "w4"):
                yield product, nodes[f"{product.product}/weight"]


def array(node: ir.Node, index: int) -> np.ndarray:
    """A constant input of a node."""
    value = node.inputs[index]
    assert value is not None
    assert value.const_value is not None
    return value.const_value.numpy()


def by_column_values(product: ProductPrecision, weight: ir.Node) -> np.ndarray:
    """Integers that are int8 with a scale per column, as everyone reads it."""
    values, scales = array(weight, 0), array(weight, 1)
    assert (values.dtype, values.shape) == (np.int8, (product.rows, product.columns))
    assert scales.shape == (product.columns,)
    assert {name: weight.attributes.get_int(name) for name in weight.attributes} == {"axis": 1}
    assert len(weight.inputs) == 2  # no zero point
    assert values.min() >= -127
    return values


@pytest.mark.parametrize("name", HIERARCHIES)
def test_int8_is_symmetric_by_column_and_by_tensor(name: str, precise: PrecisionZoo) -> None:
    """Weights have a scale per output and use -127 to 127; the input has one scale; zero is zero: TensorRT takes no other."""
    products = list(weights(precise[name].build(Plan(default="int8", cache="fp32"))))
    assert products
    for product, weight in products:
        by_column_values(product, weight)
        (matmul,) = weight.outputs[0].consumers()
        widen = matmul.inputs[0].producer() if matmul.inputs[0] else None
        assert widen is not None
        quantise = widen.inputs[0].producer() if widen.inputs[0] else None
        assert quantise is not None
        assert [node.op_type for node in (quantise, widen, matmul)] == ["QuantizeLinear", "DequantizeLinear", "MatMul"]
        for node in (quantise, widen):
            assert array(node, 1).shape == ()
            assert (array(node, 2).dtype, int(array(node, 2))) == (np.int8, 0)
        assert quantise.inputs[1] is widen.inputs[1]


@pytest.mark.parametrize("name", HIERARCHIES)
def test_w8_has_the_weights_of_int8_and_the_input_as_it_is(name: str, precise: PrecisionZoo) -> None:
    """Whatever the number of rows, and whatever the text: only int8 moves scales into norms."""
    specimen = precise[name]
    products = list(weights(specimen.build(Plan(default="w8", cache="fp32"))))
    assert {product.product for product, _ in products} == set(specimen.calibration.products)
    for product, weight in products:
        np.testing.assert_array_equal(by_column_values(product, weight), by_column(fp32_weight(specimen, product)).values)
        (matmul,) = weight.outputs[0].consumers()
        source = matmul.inputs[0].producer() if matmul.inputs[0] else None
        assert source is None or source.op_type != "DequantizeLinear"


@pytest.mark.parametrize("name", HIERARCHIES)
def test_blocks_of_rows_have_their_scales(name: str, precise: PrecisionZoo) -> None:
    """`[K / block, N]`; 4 bits are packed two to a byte."""
    products = list(weights(precise[name].build(Plan(default="w4", cache="fp32"))))
    assert products
    for product, weight in products:
        block = block_for(product.rows)
        assert block is not None
        assert weight.attributes.get_int("block_size") == block
        assert weight.attributes.get_int("axis") == 0
        assert array(weight, 1).shape == (product.rows // block, product.columns)
        assert array(weight, 0).shape == (product.rows, product.columns)
        value = weight.inputs[0]
        assert value is not None
        assert value.dtype == ir.DataType.INT4
        assert value.const_value is not None
        assert value.const_value.nbytes == product.rows * product.columns // 2


def fp32_weight(precise: Precise, product: ProductPrecision) -> np.ndarray:
    """A product's weight in the fp32 model."""
    stage, _, name = product.product.partition("/")
    module = next(stage_ for stage_ in precise.model.stages() if stage_.spec.name == stage).module
    weight = module.get_submodule(module_path(name)).weight
    assert isinstance(weight, Tensor)
    return weight.detach().numpy().T


def test_blocks_are_chosen_by_what_the_text_shows(precise: PrecisionZoo) -> None:
    """With text by the mean squares of the inputs, without by the weight alone."""
    specimen = precise["vanilla"]
    differ = False
    for calibrated in (True, False):
        for product, weight in weights(specimen.build(Plan(default="w4", cache="fp32"), calibrated)):
            known = specimen.calibration.products[product.product].mean_square if calibrated else None
            source, block = fp32_weight(specimen, product), block_for(product.rows)
            assert block is not None
            expected = by_block(source, block, known)
            np.testing.assert_array_equal(array(weight, 0).astype(np.int8), expected.values)
            np.testing.assert_array_equal(array(weight, 1), expected.scales)
            differ |= bool((expected.scales != by_block(source, block).scales).any())
    assert differ


def written(precise: Precise, stage: str, plan: Plan, directory: Path, calibrated: bool = True) -> WrittenStage:
    """What `write_precision` says of a stage of the fp32 bundle."""
    source = precise.full.file(f"stages/{stage}.onnx")
    return write_precision(source, directory / "stage.onnx", stage, plan, precise.calibration if calibrated else None)


def test_rows_without_blocks_stay_fp32(precise: PrecisionZoo, tmp_path: Path) -> None:
    """In w4, and the report says why."""
    products = written(precise["resampled"], "1.pre", Plan(default="w4"), tmp_path).products
    assert {product.asked for product in products} == {"w4"}
    reason = "20 rows are no multiple of 16, the smallest block"
    for product in products:
        assert (product.obtained, product.reason) == (("fp32", reason) if product.rows == 20 else ("w4", ""))
    assert {product.rows for product in products} == {20, 32, 64}


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_activations_must_be_known(precision: str, precise: PrecisionZoo, tmp_path: Path) -> None:
    """The first product whose ranges are missed is named, and nothing is written."""
    reason = rf"1/stack/layers/0/attention/qkv was asked to be {precision}, for which its activations must be known; "
    with pytest.raises(CalibrationError, match=reason + r"give text: calibration=\[\.\.\.\], or --calibration FILE"):
        written(precise["vanilla"], "1", Plan(default=precision), tmp_path, calibrated=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("precision", LOSSY)
def test_the_head_takes_part_by_choice(precision: str, precise: PrecisionZoo, tmp_path: Path) -> None:
    """Left out, it is fp32, and was asked to be."""
    for head in (True, False):
        result = written(precise["vanilla"], "1", Plan(default=precision, head=head), tmp_path)
        *rest, last = result.products
        assert last.product == "1/exit/logits"
        assert (last.asked, last.obtained) == ((precision, precision) if head else ("fp32", "fp32"))
        assert {product.obtained for product in rest} == {precision}


@pytest.mark.parametrize(("precision", "row_bytes"), [("fp32", 128), ("fp16", 64), ("int8", 36), ("w8", 36), ("w4", 36)])
def test_the_tables_take_part_by_choice(precision: str, row_bytes: int, precise: PrecisionZoo, tmp_path: Path) -> None:
    """128 tokens and 96 positions of 32 numbers: 2 bytes each in fp16, 1 and a scale for the row in the others."""
    for embedding, expected in ((False, 128), (True, row_bytes)):
        result = written(precise["vanilla"], "1", Plan(default=precision, embedding=embedding), tmp_path)
        assert result.table_bytes == (128 + 96) * expected


def test_a_product_may_be_an_exception(precise: PrecisionZoo, tmp_path: Path) -> None:
    """The product's precision goes before the stage's, and that before the default."""
    names = [f"1/stack/layers/{layer}/feed_forward/{part}" for layer in (0, 1) for part in ("up", "down")]
    plan = Plan(default="fp16", stages={"1": "w8"}, products=dict(zip(names, ("fp32", "int8", "w4", "fp16"), strict=True)))
    found = {product.product: product.obtained for product in written(precise["vanilla"], "1", plan, tmp_path).products}
    assert [found.pop(name) for name in names] == ["fp32", "int8", "w4", "fp16"]
    assert set(found.values()) == {"w8"}


def test_fp32_changes_nothing(precise: PrecisionZoo, tmp_path: Path) -> None:
    """A plan of nothing gives the same weights."""
    result = written(precise["nested"], "6", Plan(), tmp_path, calibrated=False)
    entry = next(entry for entry in precise["nested"].full.manifest.stages if entry.spec.name == "6")
    assert (result.weight_bytes, result.cache_dtype, result.cache_scales) == (entry.weight_bytes, "float32", ())
    assert {product.obtained for product in result.products} == {"fp32"}


@needs_int8_caches
def test_caches_are_int8_where_the_projections_have_integers(precise: PrecisionZoo, tmp_path: Path) -> None:
    """127 stands for the largest key and value of the layer in the text; not without text, not if asked to be fp32."""
    specimen = precise["vanilla"]
    ranges = list(specimen.calibration.caches.values())
    for precision in ("int8", "w8", "w4"):
        scales = written(specimen, "1", Plan(default=precision), tmp_path).cache_scales
        np.testing.assert_allclose([scale.key * 127 for scale in scales], [seen.key_absmax for seen in ranges])
        np.testing.assert_allclose([scale.value * 127 for scale in scales], [seen.value_absmax for seen in ranges])
        assert written(specimen, "1", Plan(default=precision, cache="fp32"), tmp_path).cache_scales == ()
    assert written(specimen, "1", Plan(default="w4"), tmp_path, calibrated=False).cache_scales == ()
    one_is_fp32 = Plan(default="int8", products={"1/stack/layers/1/attention/qkv": "fp32"})
    assert written(specimen, "1", one_is_fp32, tmp_path).cache_scales == ()
    for precision in ("fp32", "fp16"):
        assert written(specimen, "1", Plan(default=precision), tmp_path).cache_scales == ()
