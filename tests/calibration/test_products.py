"""The products of a stage graph: found wherever they stand, with the model's own weights."""

from __future__ import annotations

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest
from precisions import module_path
from specimens import Specimen
from torch import nn

from foveal.calibration.products import Product, expose_products, find_attentions, find_products

LAYER = ("attention/qkv", "attention/out", "feed_forward/up", "feed_forward/down")
PRODUCTS = {
    "1.pre": [f"1.pre/stack/layers/0/{place}" for place in LAYER],
    "2.pre": ["2.pre/Shorten/flat_pooled"],
    "4": ["4/Shorten/flat_pooled", *(f"4/stack/layers/0/{place}" for place in LAYER), "4/Lengthen/wide"],
    "2.post": ["2.post/Lengthen/wide"],
    "1.post": ["1.post/exit/logits"],
}


def exposed(nested: Specimen, stage: str, engine: bool) -> ir.Model:
    """A stage's portable graph or CPU engine, its products made visible."""
    manifest = nested.bundle.manifest
    graphs = manifest.engines["cpu"] if engine else {entry.spec.name: entry.graph for entry in manifest.stages}
    graph = ir.load(nested.bundle.file(graphs[stage]))
    expose_products(graph, stage)
    return graph


def linear(nested: Specimen, product: Product) -> nn.Linear:
    """The module of a product."""
    stage, _, place = product.name.partition("/")
    modules = {stage.spec.name: stage.module for stage in nested.model.stages()}
    found = modules[stage].get_submodule(module_path(place))
    assert isinstance(found, nn.Linear)
    return found


@pytest.mark.parametrize("engine", [False, True], ids=["portable", "cpu"])
@pytest.mark.parametrize("stage", PRODUCTS)
def test_every_product_is_found_in_dataflow_order(nested: Specimen, stage: str, engine: bool) -> None:
    """In layers, in resampling and in the head, under the same name in either graph."""
    assert [product.name for product in find_products(exposed(nested, stage, engine))] == PRODUCTS[stage]


@pytest.mark.parametrize("engine", [False, True], ids=["portable", "cpu"])
@pytest.mark.parametrize("stage", PRODUCTS)
def test_weights_and_biases_are_the_models(nested: Specimen, stage: str, engine: bool) -> None:
    """`[K, N]`, also where the head is tied to the table of tokens; no bias where the module has none."""
    for product in find_products(exposed(nested, stage, engine)):
        module = linear(nested, product)
        np.testing.assert_array_equal(product.weight, module.weight.detach().numpy().T)
        assert (product.bias is None) == (module.bias is None)
        if product.bias is not None:
            np.testing.assert_array_equal(np.asarray(product.bias.const_value), module.bias.detach().numpy())


@pytest.mark.parametrize("stage", PRODUCTS)
def test_a_product_with_its_surroundings(nested: Specimen, stage: str) -> None:
    """`y` is the product after its bias, `raw` before it; a residual that is added is no bias."""
    for product in find_products(exposed(nested, stage, engine=False)):
        assert product.raw is product.matmul.outputs[0]
        assert product.x is product.matmul.inputs[0]
        if product.name.endswith("/qkv"):
            assert product.y is product.raw
        else:
            assert product.y.producer() is product.bias_add
            assert product.bias_add is not None
            assert product.raw in product.bias_add.inputs


def test_exposing_changes_no_other_graph(nested: Specimen) -> None:
    """What is inlined has names of its own; a stage without resampling is as it was."""
    graph = exposed(nested, "2.pre", engine=False)
    assert "Shorten" not in {node.op_type for node in graph.graph}
    names = [node.name or "" for node in graph.graph]
    assert len(set(names)) == len(names)
    untouched = exposed(nested, "1.pre", engine=False)
    assert [node.name for node in untouched.graph] == [
        node.name for node in ir.load(nested.bundle.file("stages/1.pre.onnx")).graph
    ]


def test_attentions_are_counted_by_layer(nested: Specimen) -> None:
    """With their queries, keys and values side by side; none in an empty stack."""
    for stage, layers in (("1.pre", 1), ("2.pre", 0), ("4", 1)):
        for engine in (False, True):
            found = find_attentions(exposed(nested, stage, engine), stage)
            assert list(found) == [f"{stage}/attention/{layer}" for layer in range(layers)]
            assert all(packed.qkv.shape is not None and packed.qkv.shape[-1] == 3 * 3 * 8 for packed in found.values())


def added_to(residual: bool) -> ir.Model:
    """A product of a weight, and a vector or its own input added to it."""
    added = "x" if residual else "bias"
    text = f"""
        <ir_version: 10, opset_import: ["" : 23]>
        agraph (float[N, 2] x) => (float[N, 2] y)
        <float[2, 2] w = {{1, 2, 3, 4}}, float[2] bias = {{5, 6}}>
        {{
            product = MatMul (x, w)
            biased = Add ({added}, product)
            y = Relu (biased)
        }}
    """
    return ir.from_proto(onnx.parser.parse_model(text))


@pytest.mark.parametrize("residual", [False, True])
def test_only_a_vector_is_a_bias(residual: bool) -> None:
    """On either side of the addition."""
    (product,) = find_products(added_to(residual))
    assert (product.bias_add is None) == residual
    assert product.y.name == ("product" if residual else "biased")


def test_a_product_of_two_activations_is_none() -> None:
    """It has no weight to round."""
    graph = added_to(residual=False)
    matmul = next(node for node in graph.graph if node.op_type == "MatMul")
    matmul.replace_input_with(1, graph.graph.inputs[0])
    assert find_products(graph) == []


def test_a_weight_may_be_read_through_a_transposition() -> None:
    """As a head does that is tied to the table of tokens."""
    graph = added_to(residual=False)
    matmul = next(node for node in graph.graph if node.op_type == "MatMul")
    transpose = ir.node("Transpose", [graph.graph.initializers["w"]], {"perm": [1, 0]})
    matmul.prepend(transpose)
    matmul.replace_input_with(1, transpose.outputs[0])
    (product,) = find_products(graph)
    np.testing.assert_array_equal(product.weight, [[1, 3], [2, 4]])
