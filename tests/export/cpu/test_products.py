"""Quantised products on ONNX Runtime's CPU kernels: the integers arrive there, and the logits stay what the graphs mean."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime
import pytest
from combinations import fewer_examples
from hypothesis import given, settings
from hypothesis import strategies as st
from precisions import (
    CACHE,
    HIERARCHIES,
    LOSSY,
    PrecisionZoo,
    cpu_engines,
    distance,
    logits,
    needs_opset_24,
    portable_engines,
    rms_distance,
)

from foveal import BuildError, Session
from foveal.bundle import Bundle
from foveal.export.cpu.products import lower_products, read_back
from foveal.precision import Plan, ProductPrecision
from foveal.runtime.engines.onnxruntime_library import session_options

INTEGERS = ("int8", "w8", "w4")
CACHES = sorted({CACHE, "fp32"})

# Chunk by chunk and in one call, every precision's logits are equal to 1e-5 (fp32 sums in another order), unless an activation
# lies so near the border of two of its steps that it falls to the other side. That is one step of one number, and what comes of
# it: at most so much of the largest logit, with a wide margin over the largest of 1,400 chunkings (9e-4, 0, 1e-2 and 1.2e-2).
ONE_STEP = {"fp16": 4e-3, "int8": 4e-2, "w8": 4e-2, "w4": 4e-2}

# Root mean square, relative. MatMulNBits rounds activations to 8 bits by block, which is not in the portable graph.
FROM_PORTABLE = {"fp16": 3e-3, "int8": 1e-2, "w8": 4e-2, "w4": 4e-2}

# On random weights, which are harder to round than trained ones.
FROM_FP32 = {"fp16": 4e-3, "int8": 1e-1, "w8": 5e-2, "w4": 4e-1}


def chunks_of(length: int) -> st.SearchStrategy[list[int]]:
    """Ways to cut a sequence into chunks."""

    def cut(sizes: list[int]) -> list[int]:
        chunks: list[int] = []
        for size in sizes:
            if sum(chunks) < length:
                chunks.append(min(size, length - sum(chunks)))
        return chunks

    return st.lists(st.one_of(st.just(1), st.integers(1, 24)), min_size=length, max_size=length).map(cut)


@pytest.mark.parametrize("name", HIERARCHIES)
@pytest.mark.parametrize("precision", LOSSY)
@fewer_examples(3)
@given(data=st.data())
def test_any_chunks_give_the_same_logits(precision: str, name: str, precise: PrecisionZoo, data: st.DataObject) -> None:
    """As in one call, for any batch, caches, chunking and rewinding: to the step of an activation."""
    bundle = precise[name].build(Plan(default=precision, cache=data.draw(st.sampled_from(CACHES))))
    batch, length = data.draw(st.integers(1, 3)), data.draw(st.integers(2, 90))
    ids = precise[name].ids(batch, length, seed=data.draw(st.integers(0, 999)))
    whole = logits(bundle, cpu_engines(bundle), ids)
    session = Session(cpu_engines(bundle), bundle.manifest.model, batch)
    found, start = [], 0
    for size in data.draw(chunks_of(length)):
        found.append(session.advance(ids[:, start : start + size]))
        start += size
    assert distance(np.concatenate(found, 1), whole) < ONE_STEP[precision]
    back = data.draw(st.integers(1, length))
    session.rewind(back)
    last = session.advance(ids[:, length - back :], last_only=True)
    assert distance(last, whole[:, -1:]) < 2 * ONE_STEP[precision]


@pytest.mark.parametrize("name", HIERARCHIES)
@pytest.mark.parametrize("precision", LOSSY)
@pytest.mark.parametrize("cache", CACHES)
def test_chunks_mostly_give_the_very_same_logits(precision: str, name: str, cache: str, precise: PrecisionZoo) -> None:
    """An activation on a border is the exception: of twelve chunkings at least nine are equal to 1e-5."""
    bundle = precise[name].build(Plan(default=precision, cache=cache))
    rng, distances = np.random.default_rng(1), []
    for seed in range(12):
        ids, sizes = precise[name].ids(1, 40, seed), []
        while sum(sizes) < 40:
            sizes.append(min(int(rng.choice([1, 1, rng.integers(1, 20)])), 40 - sum(sizes)))
        distances.append(distance(logits(bundle, cpu_engines(bundle), ids, sizes), logits(bundle, cpu_engines(bundle), ids)))
    assert sorted(distances)[8] < 1e-5


@needs_opset_24
@pytest.mark.parametrize("name", HIERARCHIES)
@pytest.mark.parametrize("precision", LOSSY)
def test_an_engine_is_near_its_portable_graph(precision: str, name: str, precise: PrecisionZoo) -> None:
    """int8 and fp16 do the same roundings in both; w8 and w4 round activations too, on the CPU only."""
    bundle, ids = precise[name].build(Plan(default=precision, cache="fp32")), precise[name].ids(2, 70)
    got = logits(bundle, cpu_engines(bundle), ids, [1, 30, 1, 38])
    expected = logits(bundle, portable_engines(bundle), ids)
    assert rms_distance(got, expected) < FROM_PORTABLE[precision]
    if precision == "int8":
        assert np.median(np.abs(got - expected).max(-1)) < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("name", HIERARCHIES)
@pytest.mark.parametrize("precision", LOSSY)
@pytest.mark.parametrize("cache", CACHES)
def test_an_engine_is_near_fp32(precision: str, name: str, cache: str, precise: PrecisionZoo) -> None:
    """By so much as the precision has steps, int8 caches included; and it is not fp32 by mistake."""
    specimen = precise[name]
    bundle, ids = specimen.build(Plan(default=precision, cache=cache)), specimen.ids(2, 70)
    expected = logits(specimen.full, cpu_engines(specimen.full), ids)
    assert 1e-4 < rms_distance(logits(bundle, cpu_engines(bundle), ids), expected) < FROM_FP32[precision]


precision_of = st.sampled_from(["fp32", *LOSSY])


@needs_opset_24
@pytest.mark.parametrize("name", ["vanilla", "resampled"])
@settings(max_examples=8)  # each builds a bundle
@given(data=st.data())
def test_any_mixture_of_precisions(name: str, precise: PrecisionZoo, data: st.DataObject) -> None:
    """Each product its own precision: the engine is near the portable graph, and every product obtained what was asked."""
    specimen = precise[name]
    everything = specimen.build(Plan(default="int8", cache="fp32"))
    products = [p for entry in everything.manifest.stages for p in everything.sidecar("cpu", entry.spec.name).products]
    chosen = {product.product: data.draw(precision_of, label=product.product) for product in products}
    plan = Plan(products=chosen, default=data.draw(precision_of), embedding=data.draw(st.booleans()), cache="fp32")
    bundle, ids = specimen.build(plan), specimen.ids(1, 20)
    assert rms_distance(logits(bundle, cpu_engines(bundle), ids), logits(bundle, portable_engines(bundle), ids)) < 5e-2
    for entry in bundle.manifest.stages:
        for product in bundle.sidecar("cpu", entry.spec.name).products:
            has_blocks = product.rows % 16 == 0
            assert product.asked == chosen[product.product]
            assert product.obtained == (product.asked if has_blocks or product.asked != "w4" else "fp32")


def engine_of(bundle: Bundle, stage: str) -> Path:
    """A stage's engine."""
    return bundle.file(bundle.manifest.engines["cpu"][stage])


def optimised(engine: Path, directory: Path) -> ir.Model:
    """The graph that ONNX Runtime makes of an engine as the runtime loads it."""
    options = session_options()
    options.optimized_model_filepath = str(directory / "optimised.onnx")
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights")
    onnxruntime.InferenceSession(str(engine), options, providers=["CPUExecutionProvider"])
    return ir.load(directory / "optimised.onnx")


def is_matrix(value: ir.Value | None) -> bool:
    """Whether it is a constant of the size of a weight; scales and biases are vectors, whatever their shape says."""
    constant = None if value is None else value.const_value
    return constant is not None and constant.size > 200 and constant.size > 2 * max(constant.shape)


@pytest.mark.parametrize("name", HIERARCHIES)
@pytest.mark.parametrize("precision", INTEGERS)
@pytest.mark.parametrize("cache", CACHES)
def test_no_weight_is_widened_at_run_time(precision: str, name: str, cache: str, precise: PrecisionZoo, tmp_path: Path) -> None:
    """In the graph that really runs, integers go into products and look-ups; fp32 matrices are w4's products without blocks."""
    bundle = precise[name].build(Plan(default=precision, embedding=True, cache=cache))
    for entry in bundle.manifest.stages:
        model = optimised(engine_of(bundle, entry.spec.name), tmp_path)
        nodes = [*model.graph.all_nodes(), *(node for function in model.functions.values() for node in function.all_nodes())]
        fp32, integers = [], 0
        for node in nodes:
            for value in filter(is_matrix, node.inputs):
                assert value is not None
                if value.dtype in (ir.DataType.FLOAT, ir.DataType.FLOAT16):
                    fp32.append(value.const_value.size if value.const_value is not None else 0)
                else:
                    assert node.op_type.startswith(("MatMul", "Gather", "DynamicQuantizeMatMul", "QGemm", "QLinearMatMul"))
                    integers += not node.op_type.startswith("Gather")
        products = bundle.sidecar("cpu", entry.spec.name).products
        assert sorted(fp32) == sorted(p.rows * p.columns for p in products if p.obtained == "fp32")
        assert integers == sum(p.obtained != "fp32" for p in products)


@pytest.mark.parametrize(("precision", "most"), [("int8", 0.4), ("w8", 0.4), ("w4", 0.3)])
def test_engines_are_as_small_as_their_precision(precision: str, most: float, precise: PrecisionZoo) -> None:
    """Nor is there a second copy of a weight beside the integers."""
    specimen = precise["vanilla"]
    bundle = specimen.build(Plan(default=precision, embedding=True, cache=CACHE))
    small, large = (engine_of(b, "1").with_suffix(".onnx.data").stat().st_size for b in (bundle, specimen.full))
    assert small < most * large


@pytest.mark.parametrize(("precision", "wrong"), [("int8", "w8"), ("w4", "int8"), ("w8", "fp16")])
def test_an_engine_that_runs_another_kernel_is_refused(precision: str, wrong: str, precise: PrecisionZoo) -> None:
    """Every such product is named, with what was asked and the kernel that came; the others are not."""
    bundle = precise["vanilla"].build(Plan(default=precision, cache=CACHE))
    products = bundle.sidecar("cpu", "1").products
    assert read_back(engine_of(bundle, "1"), products) == products
    changed = [
        msgspec.structs.replace(product, asked=wrong, obtained=wrong) if "feed_forward" in product.product else product
        for product in products
    ]
    with pytest.raises(BuildError) as caught:
        read_back(engine_of(bundle, "1"), changed)
    message = str(caught.value)
    version = re.escape(onnxruntime.__version__)
    assert re.fullmatch(rf"onnxruntime {version} does not run these products as asked: .*; report it", message)
    named = re.findall(r"(\S+) \(asked (\w+), kernel (\w+)\)", message)
    assert [name for name, _, _ in named] == [product.product for product in changed if product.obtained == wrong]
    assert {(asked, kernel) for _, asked, kernel in named} == {(wrong, products[0].kernel)}


def test_a_product_that_is_not_there_is_refused(precise: PrecisionZoo) -> None:
    """Its kernel is "none"."""
    bundle = precise["vanilla"].build(Plan(default="int8", cache=CACHE))
    lost = msgspec.structs.replace(bundle.sidecar("cpu", "1").products[0], product="1/lost")
    with pytest.raises(BuildError, match=r"as asked: 1/lost \(asked int8, kernel none\); report it"):
        read_back(engine_of(bundle, "1"), [lost])


def test_an_engine_that_widens_a_weight_is_refused(tmp_path: Path) -> None:
    """Here because something stands between the weight and its product."""
    model = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 20]> stage (float[L,64] x) => (float[L,32] y)
        { w = DequantizeLinear <axis = 1> (values, scales) v = Relu (w) y = MatMul (x, v) }""")
    rng = np.random.default_rng(0)
    for name, values in (("values", rng.integers(-127, 128, (64, 32), np.int8)), ("scales", rng.random(32, np.float32))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    for node in model.graph.node:
        node.name = f"1/head/{node.op_type}"
    onnx.save(model, tmp_path / "1.onnx")
    product = ProductPrecision(product="1/head", rows=64, columns=32, asked="int8", obtained="int8")
    reason = r"^1\.onnx: onnxruntime would widen a weight in every step, in 1/head/DequantizeLinear; report it$"
    with pytest.raises(BuildError, match=reason):
        read_back(tmp_path / "1.onnx", [product])


@pytest.mark.parametrize("rows", [1, 16, 20, 30, 64, 100, 200, 384, 512])
@pytest.mark.parametrize("several", [1, 5])
def test_a_scale_per_column_serves_blocks_of_any_rows(rows: int, several: int) -> None:
    """The kernel's last block is filled up where none divides the rows; what is lost is its rounding of activations."""
    model = onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["" : 20]> stage (float[L,{rows}] x) => (float[L,24] y)
        {{ w = DequantizeLinear <axis = 1> (values, scales) y = MatMul (x, w) }}""")
    rng = np.random.default_rng(rows)
    values, scales = rng.integers(-127, 128, (rows, 24), np.int8), rng.random(24, np.float32) + 0.1
    constants = {"values": values, "scales": scales}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in constants.items())
    lowered = ir.serde.deserialize_model(model)
    for node in lowered.graph:
        node.name = f"1/head/{node.op_type}"
    lower_products(lowered)
    (node,) = [node for node in lowered.graph if node.op_type == "MatMulNBits"]
    assert node.attributes.get_int("block_size") == next((b for b in (256, 128, 64, 32, 16) if rows % b == 0), 16)
    x = rng.standard_normal((several, rows), np.float32)
    session = onnxruntime.InferenceSession(ir.to_proto(lowered).SerializeToString(), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {"x": x})
    assert rms_distance(got, x @ (values * scales)) < 1e-2
