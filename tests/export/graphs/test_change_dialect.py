"""A stage graph said in another dialect: the same contract, the same logits, and only what TensorRT 10.3 is known to parse."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from precisions import (
    CACHE,
    HIERARCHIES,
    LOSSY,
    PrecisionZoo,
    classic_engines,
    classic_graphs,
    distance,
    logits,
    needs_opset_24,
    portable_engines,
)
from specimens import ZOO, Zoo, full_forward, random_ids

from foveal import ExportError
from foveal.bundle import Bundle
from foveal.export.cpu.lower import lower
from foveal.export.graphs.change_dialect import change_dialect
from foveal.export.graphs.dialect import CLASSIC, DIALECTS, MODERN
from foveal.export.precision.write_precision import write_precision
from foveal.precision import PRECISIONS, Plan

# Those ops of docs/operators.md, onnx/onnx-tensorrt 10.1-GA, that stage graphs use. Its restrictions: no zero points but 0 in
# QuantizeLinear and DequantizeLinear, no reduction in ScatterND, constant axes in ReduceMean, Squeeze and Unsqueeze.
PARSED = {
    *("Add", "Cast", "CastLike", "Concat", "Constant", "Cos", "DequantizeLinear", "Div", "Expand", "Gather", "Gelu"),
    *("Identity", "LayerNormalization", "LessOrEqual", "MatMul", "Mul", "QuantizeLinear", "Range", "ReduceMean"),
    *("Reshape", "ScatterND", "Shape", "Sin", "Slice", "Softmax", "Split", "Squeeze", "Sub", "Tile", "Transpose"),
    *("Unsqueeze", "Where"),
}
SAME = {"fp16": 3e-3, "int8": 2e-2, "w8": 1e-5, "w4": 1e-5}  # as the precisions' tests have it, of the largest logit


def text_of(model: ir.Model) -> bytes:
    """A model as bytes, so that any difference shows."""
    return ir.to_proto(model).SerializeToString(deterministic=True)


def nodes_of(graph: Path) -> Iterator[ir.Node]:
    """All nodes in standard ops, those of the functions included."""
    model = ir.load(graph)
    everywhere = (model.graph.all_nodes(), *(function.all_nodes() for function in model.functions.values()))
    return (node for nodes in everywhere for node in nodes if node.domain == "")


@pytest.fixture(params=[*ZOO, *(f"{name} in {precision}" for name in HIERARCHIES for precision in LOSSY)])
def bundle(request: pytest.FixtureRequest, zoo: Zoo, precise: PrecisionZoo) -> Bundle:
    """Every kind of stage, and every precision."""
    name, _, precision = str(request.param).partition(" in ")
    return precise[name].build(Plan(default=precision, cache="fp32", embedding=True)) if precision else zoo[name].bundle


def test_a_graph_keeps_its_contract(bundle: Bundle) -> None:
    """Inputs, outputs, weights and the names of its nodes; the checker has nothing to say; int4 is a type since opset 21."""
    for entry in bundle.manifest.stages:
        modern, path = bundle.file(entry.graph), classic_graphs(bundle)[entry.spec.name]
        onnx.checker.check_model(str(path), full_check=True)
        before, after = (onnx.load(graph, load_external_data=False) for graph in (modern, path))
        assert list(after.graph.input) == list(before.graph.input)
        assert list(after.graph.output) == list(before.graph.output)
        assert list(after.graph.node) == list(before.graph.node)
        assert path.with_suffix(".onnx.data").read_bytes() == modern.with_suffix(".onnx.data").read_bytes()
        holds_int4 = any(tensor.data_type == onnx.TensorProto.INT4 for tensor in after.graph.initializer)
        versions = {known.version for owner in (after, *after.functions) for known in owner.opset_import if known.domain == ""}
        assert versions == {21 if holds_int4 else 20}
        assert all(node.name for function in after.functions for node in function.node)


def test_a_graph_says_only_what_tensorrt_10_3_parses(bundle: Bundle) -> None:
    """By its documentation and the restrictions in its source."""
    for graph in classic_graphs(bundle).values():
        for node in nodes_of(graph):
            assert node.op_type in PARSED
            assert node.op_type != "ScatterND" or not node.attributes  # it refuses even reduction = "none"
            scales = node.inputs[1] if node.op_type == "DequantizeLinear" else None
            if scales is not None and scales.shape is not None and len(scales.shape) == 2:
                assert node.inputs[0] is not None
                assert node.inputs[0].dtype == ir.DataType.INT4  # its blocks


def test_no_input_of_a_function_is_taken_for_another_tensor(bundle: Bundle) -> None:
    """TensorRT 10.3 reads the graph's own tensor of the name of a function's input, where there is one."""
    for graph in classic_graphs(bundle).values():
        model = onnx.load(graph, load_external_data=False)
        own = {value.name for value in (*model.graph.input, *model.graph.output, *model.graph.initializer)}
        own |= {name for node in model.graph.node for name in node.output}
        functions = {function.name: function for function in model.functions}
        for node in model.graph.node:
            if node.domain == "foveal":
                pairs = zip(node.input, functions[node.op_type].input, strict=True)
                assert all(inner == outer or inner not in own for outer, inner in pairs)


def test_a_cpu_engine_does_not_show_where_it_came_from(bundle: Bundle, tmp_path: Path) -> None:
    """Lowering gives the same file from either dialect, with int8 caches too, which need an opset of their own."""
    for entry in bundle.manifest.stages:
        scales = bundle.sidecar("cpu", entry.spec.name).cache_scales if CACHE == "auto" else ()
        for cache_scales in {(), scales}:
            found = []
            for graph in (bundle.file(entry.graph), classic_graphs(bundle)[entry.spec.name]):
                lower(graph, tmp_path / "stage.onnx", entry.spec, cache_scales)
                found.append([(tmp_path / name).read_bytes() for name in ("stage.onnx", "stage.onnx.data")])
            assert found[0] == found[1]


def test_there_and_back(bundle: Bundle) -> None:
    """A graph in its own dialect is left as it is, and so is one that comes back to it."""
    for entry in bundle.manifest.stages:
        model = ir.load(bundle.file(entry.graph))
        before = text_of(model)
        change_dialect(model, MODERN)
        assert text_of(model) == before
        change_dialect(model, CLASSIC)
        assert text_of(model) != before
        change_dialect(model, MODERN)
        assert text_of(model) == before


@pytest.mark.parametrize("name", ZOO)
@settings(max_examples=8)
@given(data=st.data())
def test_any_chunks_give_the_full_forward(name: str, zoo: Zoo, data: st.DataObject) -> None:
    """Classic graphs on ONNX Runtime, for any batch: new rows go where they belong, and no later row is seen."""
    model, bundle = zoo[name].model, zoo[name].bundle
    batch, length = data.draw(st.integers(1, 3)), data.draw(st.integers(2, 60))
    sizes, ids = [], random_ids(batch, length)
    while sum(sizes) < length:
        sizes.append(data.draw(st.integers(1, min(24, length - sum(sizes)))))
    np.testing.assert_allclose(logits(bundle, classic_engines(bundle), ids, sizes), full_forward(model, ids), atol=1e-4)


def test_every_sequence_has_a_position_of_its_own(zoo: Zoo) -> None:
    """A batch of sequences at different positions is each of them alone."""
    bundle = zoo["vanilla"].bundle
    (engine,) = classic_engines(bundle)
    spec, rng = engine.spec, np.random.default_rng(0)
    names = [f"past_key_values.{cache.name}" for cache in spec.caches]
    shapes = [(3, cache.heads, 20, cache.width) for cache in spec.caches]
    given = {name: rng.standard_normal(shape, np.float32) for name, shape in zip(names, shapes, strict=True)}
    given |= {"input_ids": random_ids(3, 4), "position": np.array([0, 5, 16]), "logit_rows": np.array([1, 3])}
    together = engine.session.run(None, given)
    for sequence in range(3):
        alone = {name: array if name == "logit_rows" else array[sequence : sequence + 1] for name, array in given.items()}
        for whole, part in zip(together, engine.session.run(None, alone), strict=True):
            np.testing.assert_allclose(whole[sequence : sequence + 1], part, atol=1e-5)
        start = given["position"][sequence]
        past, present = given[names[0]][sequence], together[1][sequence]
        kept = np.delete(np.arange(20), np.arange(start, start + 4))
        np.testing.assert_array_equal(present[:, kept], past[:, kept])
        assert (present[:, start : start + 4] != past[:, start : start + 4]).all()


@needs_opset_24
@pytest.mark.parametrize("name", HIERARCHIES)
@pytest.mark.parametrize("precision", LOSSY)
def test_the_logits_of_a_precision_stay(precision: str, name: str, precise: PrecisionZoo) -> None:
    """Half caches and added masks included: nearly all rows equal to 1e-5, fp16 aside."""
    bundle = precise[name].build(Plan(default=precision, cache="fp32", embedding=True))
    ids = precise[name].ids(2, 70)
    expected = logits(bundle, portable_engines(bundle), ids)
    got = logits(bundle, classic_engines(bundle), ids, [1, 1, 40, 1, 27])
    assert distance(got, expected) < SAME[precision]
    rows = np.abs(got - expected).max(-1) / np.abs(expected).max()
    assert np.median(rows) < (1e-3 if precision == "fp16" else 1e-5)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_precision_may_be_written_in_either_order(precision: str, precise: PrecisionZoo, tmp_path: Path) -> None:
    """Into a classic graph, or into a modern one that is restated afterwards."""
    specimen = precise["resampled"]
    plan, known = Plan(default=precision), specimen.calibration
    for stage, graph in classic_graphs(specimen.full).items():
        write_precision(specimen.full.file(f"stages/{stage}.onnx"), tmp_path / "a.onnx", stage, plan, known)
        write_precision(graph, tmp_path / "b.onnx", stage, plan, known, CLASSIC)
        afterwards = ir.load(tmp_path / "a.onnx")
        change_dialect(afterwards, CLASSIC)
        assert text_of(afterwards).replace(b"a.onnx", b"b.onnx") == text_of(ir.load(tmp_path / "b.onnx"))


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("y = Attention (x, x, x)", "Attention"),
        ("y = RotaryEmbedding (x, c, s)", "RotaryEmbedding"),
        ("q = Cast <to = 3> (x) y = DequantizeLinear <axis = 0, block_size = 2> (q, c)", "DequantizeLinear's block_size"),
        ("y = Sharpen (x)", "Sharpen"),
    ],
)
def test_what_a_dialect_can_not_say(body: str, what: str) -> None:
    """The op, or its attribute, is named with the opset, and so are the other dialects."""
    text = f"""<ir_version: 10, opset_import: ["" : 24]>
        stage (float[2,4,8] x, float[4,4] c, float[4,4] s) => (float[2,4,8] y) {{ {body} }}"""
    model = ir.serde.deserialize_model(onnx.parser.parse_model(text))
    for node in model.graph:
        node.name = f"1/{node.op_type}"
    op = what.partition("'")[0]
    reason = rf'^{what}, in 1/{op}, is not in opset 20, which the dialect "classic" is written in; keep .* dialect: modern$'
    with pytest.raises(ExportError, match=reason):
        change_dialect(model, DIALECTS["classic"])
