"""Quantised products on ONNX Runtime's CPU kernels: the integers arrive there, and the logits stay what the graphs mean."""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
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
from foveal.bundle import Bundle, chunks_name
from foveal.export.cpu.products import CHUNK_KERNELS, LEAST_ROWS, lower_products, read_back
from foveal.precision import Plan, ProductPrecision
from foveal.runtime.engines import onnxruntime_library
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


# w8 and w4 round activations by block in chunks of a few rows, and by row in chunks of many; w4's weights are rounded once
# more for those. So much of the largest logit may lie between the two, on random weights of 16 and 32 rows.
BY_ROW = {"w8": 8e-2, "w4": 1.5e-1}


def in_one_engine(precision: str, length: int) -> list[int]:
    """Chunks that are as long as they can be where an engine of few rows runs all of them."""
    longest = LEAST_ROWS - 1 if precision in BY_ROW else length
    return [min(longest, length - start) for start in range(0, length, longest)]


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
    whole = logits(bundle, cpu_engines(bundle), ids, in_one_engine(precision, length))
    session = Session(cpu_engines(bundle), bundle.manifest.model, batch)
    found, start = [], 0
    for size in data.draw(chunks_of(length)):
        found.append(session.advance(ids[:, start : start + size]))
        start += size
    assert distance(np.concatenate(found, 1), whole) < ONE_STEP[precision]
    back = data.draw(st.integers(1, in_one_engine(precision, length)[0]))
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
        whole = logits(bundle, cpu_engines(bundle), ids, in_one_engine(precision, 40))
        distances.append(distance(logits(bundle, cpu_engines(bundle), ids, sizes), whole))
    assert sorted(distances)[8] < 1e-5


@pytest.mark.parametrize("precision", sorted(BY_ROW))
@pytest.mark.parametrize("sizes", [[32, 64], [64, 32], [32, 32, 32], [33, 63], [47, 1, 48]])
def test_chunks_of_many_rows_give_the_same_logits(precision: str, sizes: list[int], precise: PrecisionZoo) -> None:
    """As in one call, behind any past, from the least chunk that is one of many rows on: to the step of an activation."""
    specimen = precise["vanilla"]
    bundle, batch = specimen.build(Plan(default=precision, cache=CACHE)), 2
    ids = specimen.ids(batch, sum(sizes), seed=len(sizes))
    got, whole = (logits(bundle, cpu_engines(bundle), ids, cut) for cut in (sizes, [sum(sizes)]))
    alone = 47 if 1 in sizes else len(ids[0])  # a row that an engine of few rows ran is rounded otherwise
    assert distance(got[:, :alone], whole[:, :alone]) < ONE_STEP[precision]
    assert distance(got, whole) < BY_ROW[precision]


@pytest.mark.parametrize("precision", sorted(BY_ROW))
@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("rows", [LEAST_ROWS - 1, LEAST_ROWS, LEAST_ROWS + 1])
def test_few_rows_and_many_are_equally_near_fp32(precision: str, cache: str, rows: int, precise: PrecisionZoo) -> None:
    """Around the length from which the other engine runs them: neither rounds worse."""
    specimen = precise["vanilla"]
    bundle, ids = specimen.build(Plan(default=precision, cache=cache)), specimen.ids(1, rows)
    (engine,) = cpu_engines(bundle)
    assert (engine.for_rows(rows) is engine) == (rows < LEAST_ROWS)
    few, many = logits(bundle, [engine], ids, [16, rows - 16]), logits(bundle, [engine], ids)
    expected = logits(specimen.full, cpu_engines(specimen.full), ids)
    assert distance(few, many) < (BY_ROW[precision] if rows >= LEAST_ROWS else ONE_STEP[precision])
    assert rms_distance(many, expected) < 1.5 * rms_distance(few, expected)


@pytest.mark.parametrize("precision", ["int8", *sorted(BY_ROW)])
def test_no_row_knows_of_a_later_one(precision: str, precise: PrecisionZoo) -> None:
    """Bit for bit: each row is rounded by its own scale, or by one that was known before."""
    specimen = precise["vanilla"]
    bundle, ids = specimen.build(Plan(default=precision, cache=CACHE)), specimen.ids(1, 80)
    others = ids.copy()
    others[:, 60:] = (ids[:, 60:] + 1) % 128
    got, expected = (logits(bundle, cpu_engines(bundle), given) for given in (others, ids))
    np.testing.assert_array_equal(got[:, :60], expected[:, :60])
    assert not np.array_equal(got[:, 60:], expected[:, 60:])


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


def chunks_of_engine(engine: Path) -> Path:
    """The engine of the same stage for many rows."""
    return Path(chunks_name(str(engine)))


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
        engine = engine_of(bundle, entry.spec.name)
        sidecar = bundle.sidecar("cpu", entry.spec.name)
        for graph in [engine] if sidecar.chunks is None else [engine, chunks_of_engine(engine)]:
            check_integers(optimised(graph, tmp_path), sidecar.products)


def check_integers(model: ir.Model, products: Sequence[ProductPrecision]) -> None:
    """All matrices of a graph but those of fp32 products are integers, and go into products and look-ups."""
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


@pytest.mark.parametrize("precision", sorted(BY_ROW))
def test_chunks_of_many_rows_have_kernels_of_their_own(precision: str, precise: PrecisionZoo) -> None:
    """They are read back, too, and none passes for the other; the engines of int8 and fp32 run any number of rows."""
    specimen = precise["vanilla"]
    bundle = specimen.build(Plan(default=precision, cache=CACHE))
    products, chunks = bundle.sidecar("cpu", "1").products, chunks_of_engine(engine_of(bundle, "1"))
    kernels = [product.kernel for product in read_back(chunks, products, CHUNK_KERNELS)]
    assert kernels == ["MatMulIntegerToFloat"] * len(products)
    with pytest.raises(BuildError, match="does not run these products as asked"):
        read_back(chunks, products)
    assert specimen.full.sidecar("cpu", "1").chunks is None
    assert specimen.build(Plan(default="int8", cache=CACHE)).sidecar("cpu", "1").chunks is None


@pytest.mark.skipif(platform.machine() != "x86_64", reason="only x86 has instructions that saturate")
@pytest.mark.parametrize("precision", ["int8", *sorted(BY_ROW)])
def test_weights_are_unsigned_where_signed_ones_would_saturate(
    precision: str, precise: PrecisionZoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU without VNNI, the same logits bit for bit, by the kernels that are exact there."""
    bundle, ids = precise["vanilla"].build(Plan(default=precision, cache=CACHE)), precise["vanilla"].ids(1, 50)
    engine = engine_of(bundle, "1")
    got = []
    for exact, dtype in ((True, ir.DataType.INT8), (False, ir.DataType.UINT8)):
        monkeypatch.setattr(onnxruntime_library, "has_vnni", lambda exact=exact: exact)
        got.append(logits(bundle, cpu_engines(bundle), ids))
        model = optimised(chunks_of_engine(engine) if precision in BY_ROW else engine, tmp_path)
        weights = [node.inputs[1] for node in model.graph if node.op_type == "MatMulIntegerToFloat"]
        assert {weight.dtype for weight in weights if weight is not None} == {dtype}
    np.testing.assert_array_equal(got[0], got[1])


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
