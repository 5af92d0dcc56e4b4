"""Every stage graph, in every precision, must parse and build with the real TensorRT-RTX compiler, which needs no GPU for that.

Nothing here runs an engine: that takes an RTX GPU (tests/gpu).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from precisions import CACHE, HIERARCHIES, Precise, PrecisionZoo, bytes_model, write_text
from specimens import ZOO, Zoo

from foveal.bundle import Bundle, StageEntry
from foveal.calibration.calibrate import calibrate
from foveal.calibration.settings import CalibrationSettings
from foveal.contract import contract_of
from foveal.errors import BuildError
from foveal.export import convert, convert_model
from foveal.export.rtx_build import BuiltStage, build_stage
from foveal.export.rtx_layers import ExecutedProduct, Kernel, executed_products
from foveal.models.loading import load_model
from foveal.precision import PRECISIONS, Plan

pytest.importorskip("tensorrt_rtx")

CHECKPOINTS = Path(__file__).parents[2] / "models" / "checkpoints"
MODELS = (*HIERARCHIES, "attention", "shipped")


class PreciseModels:
    """The small models that all tests of precisions share, one more, and the shipped checkpoint."""

    def __init__(self, small: PrecisionZoo, directory: Path) -> None:
        self._small, self._directory, self._found = small, directory, {}  # type: PrecisionZoo, Path, dict[str, Precise]

    def __getitem__(self, name: str) -> Precise:
        if name in HIERARCHIES:
            return self._small[name]
        if name not in self._found:
            self._found[name] = self._shipped() if name == "shipped" else self._attention()
        return self._found[name]

    def _attention(self) -> Precise:
        """Resampled by attention alone."""
        model = bytes_model("1@1 1@3 1@1", shortening="attention", upsampling="attention")
        text = write_text(self._directory / "text.txt")
        full = convert_model(model, self._directory / "attention", tokenizer="bytes")
        return Precise(model, full, calibrate(full, [text], threads=1), text)

    def _shipped(self) -> Precise:
        """Averaged and repeated, with real weights and a text of real ranges."""
        text, full = CHECKPOINTS / "text" / "calibration.txt", convert(CHECKPOINTS / "hourglass", self._directory / "shipped")
        ranges = calibrate(full, [text], CalibrationSettings(max_tokens=3000), threads=1)
        return Precise(load_model(CHECKPOINTS / "hourglass").model, full, ranges, text)


@pytest.fixture(scope="module")
def models(precise: PrecisionZoo, tmp_path_factory: pytest.TempPathFactory) -> PreciseModels:
    """Models to build in every precision, by name."""
    return PreciseModels(precise, tmp_path_factory.mktemp("models"))


def harmless(message: str) -> bool:
    """Warnings that say nothing against the graph (each was looked into)."""
    is_int64_input = "Make sure input" in message and "has Int64 binding" in message
    is_second_use_of_a_function = "already exists, the output tensors of this new instance will not be queryable" in message
    is_table_of_bytes = "UINT8 data" in message and "table_uint8 is being converted to INT32" in message
    return is_int64_input or is_second_use_of_a_function or is_table_of_bytes


def built(bundle: Bundle, entry: StageEntry) -> BuiltStage:
    """A stage that was built without a complaint and with every input of the contract: none was ignored."""
    stage, model = build_stage(bundle.file(entry.graph)), bundle.manifest.model
    assert len(stage.engine) > 10_000
    assert [message for message in stage.complaints if not harmless(message)] == []
    assert set(stage.inputs) == {tensor.name for tensor in contract_of(entry.spec, model.dim, model.vocab_size).inputs}
    return stage


def executed(bundle: Bundle, entry: StageEntry, stage: BuiltStage) -> Sequence[ExecutedProduct]:
    """The stage's products as the engine runs them: in the precision the bundle says, every one."""
    products = bundle.sidecar("cpu", entry.spec.name).products
    found = executed_products(stage.kernels, products)
    assert {product.product: ran.precision for product, ran in zip(products, found, strict=True)} == {
        product.product: product.obtained for product in products
    }
    assert [product for product in products if product.obtained != product.asked and not product.reason] == []
    assert len(found) >= 4 * entry.spec.layers
    return found


def types_read(kernels: Sequence[Kernel]) -> set[str]:
    """Of activations and weights."""
    types = {tensor.type for kernel in kernels for tensor in (*kernel.inputs, *kernel.constants)}
    return types & {"Float", "Half", "Int8", "Int4"}


@pytest.mark.parametrize("name", ZOO)
def test_every_stage_builds_and_ignores_no_input(name: str, zoo: Zoo) -> None:
    """All kinds of stages as converted, batch and rows dynamic, capacity static."""
    bundle = zoo[name].bundle
    for entry in bundle.manifest.stages:
        assert types_read(built(bundle, entry).kernels) == {"Float"}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", MODELS)
def test_products_run_in_the_precision_asked_for(name: str, precision: str, models: PreciseModels) -> None:
    """By the types that the engine's kernels read: every product of every stage, and in fp16 attention with its caches."""
    bundle = models[name].build(Plan(default=precision, cache=CACHE))
    for entry in bundle.manifest.stages:
        stage = built(bundle, entry)
        products = executed(bundle, entry, stage)
        # w8's blocks of int8 weights are widened to memory by a kernel (CastMulCast) of their own; TensorRT-RTX fuses int4 in
        # several blocks, and int8 in a single one.
        assert all(product.is_fused for product in products if product.precision != "w8")
        narrow = {"fp32": set(), "fp16": {"Half"}, "int8": {"Int8"}, "w8": {"Int8"}, "w4": {"Int4"}}[precision]
        assert types_read(stage.kernels) <= {"Float"} | narrow
        assert entry.spec.cache_dtype == ("float16" if precision == "fp16" and entry.spec.layers else "float32")
        if precision == "fp16":
            attentions = [kernel for kernel in stage.kernels if "_gemm_mha" in kernel.name]  # scores never reach memory
            assert len(attentions) == entry.spec.layers
            assert types_read(attentions) <= {"Half"}


@pytest.mark.parametrize(("precision", "type_read"), [("fp16", "Half"), ("int8", "Int32"), ("w8", "Int32"), ("w4", "Int32")])
@pytest.mark.parametrize("name", ["vanilla", "shipped"])
def test_tables_in_fewer_bytes_build_too(name: str, precision: str, type_read: str, models: PreciseModels) -> None:
    """TensorRT has no lookup in bytes: it makes them Int32, so that only fp16 tables are smaller in its engines."""
    bundle = models[name].build(Plan(default=precision, embedding=True, cache=CACHE))
    entry, model = bundle.manifest.stages[0], bundle.manifest.model
    stage = built(bundle, entry)
    executed(bundle, entry, stage)
    assert entry.table_bytes > 0
    lookups = [kernel for kernel in stage.kernels if any(node.endswith("/entry/tokens/Gather/rows") for node in kernel.nodes)]
    tables = {tensor.type for kernel in lookups for tensor in kernel.constants if tensor.shape == (model.vocab_size, model.dim)}
    assert tables == {type_read}


def test_precisions_side_by_side(models: PreciseModels) -> None:
    """Products of one stage need not be alike."""
    chosen = {"attention/qkv": "int8", "attention/out": "fp16", "feed_forward/up": "w4", "feed_forward/down": "w8"}
    products = {f"1/stack/layers/1/{place}": precision for place, precision in chosen.items()}
    bundle = models["vanilla"].build(Plan(default="fp32", products=products, cache=CACHE))
    (entry,) = bundle.manifest.stages
    found = executed(bundle, entry, built(bundle, entry))
    assert sorted(product.precision for product in found) == ["fp16", *["fp32"] * 5, "int8", "w4", "w8"]


def test_caches_are_updated_in_place(zoo: Zoo) -> None:
    """TensorScatter becomes TensorRT's cache update, whose input and output share one address."""
    bundle = zoo["vanilla"].bundle
    (entry,) = bundle.manifest.stages
    kinds = [kind for _, kind in built(bundle, entry).layers]
    assert kinds.count("KV_CACHE_UPDATE") == 2 * entry.spec.layers


def test_the_function_bodies_keep_their_names(zoo: Zoo) -> None:
    """Shorten and Lengthen can be told apart in the parsed network."""
    bundle = zoo["linear"].bundle
    names = [name for name, _ in built(bundle, bundle.manifest.stages[1]).layers]
    assert any("Shorten" in name for name in names)
    assert any("Lengthen" in name for name in names)


def saved(path: Path, text: str, **weights: np.ndarray) -> Path:
    """A graph, from ONNX's text form, with its weights."""
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 24]> {text}')
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in weights.items())
    onnx.save(model, path)
    return path


def test_a_graph_that_is_not_parsed(tmp_path: Path) -> None:
    """The parser's words are passed on: here, that it takes no zero points."""
    text = "g (float[B,8] x) => (float[B,8] y) { w = DequantizeLinear <axis = 0> (q, s, z) y = MatMul (x, w) }"
    weights = {"q": np.ones((8, 8), np.int8), "s": np.ones(8, np.float32), "z": np.full(8, 3, np.int8)}
    with pytest.raises(
        BuildError, match=r"^TensorRT-RTX [\d.]+ does not parse .*g\.onnx: .*[Zz]ero.*; report it with the graph$"
    ):
        build_stage(saved(tmp_path / "g.onnx", text, **weights))


def test_a_graph_that_is_not_built(tmp_path: Path) -> None:
    """The builder's words are passed on: here, that it looks nothing up in int8."""
    text = "g (int64[B,L] x) => (float[B,L,8] y) { q = Gather (table, x) y = Cast <to = 1> (q) }"
    with pytest.raises(BuildError, match=r"does not build .*g\.onnx: .*Quantized constant \(table\) is only allowed before"):
        build_stage(saved(tmp_path / "g.onnx", text, table=np.ones((4, 8), np.int8)))
