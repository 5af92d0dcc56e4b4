"""Half precision: where it may be, and where numbers would outgrow it."""

from __future__ import annotations

import re

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from precisions import (
    HIERARCHIES,
    Precise,
    PrecisionZoo,
    bytes_model,
    cpu_engines,
    logits,
    needs_opset_24,
    portable_engines,
    rms_distance,
    stored,
)
from store import Store

from foveal.bundle import Bundle
from foveal.calibration.calibrate import Calibration
from foveal.calibration.ranges import ProductRanges
from foveal.calibration.settings import CalibrationSettings
from foveal.export.precision.write_fp16 import LIMIT, attention_is_safe
from foveal.precision import Plan

HALF = onnx.TensorProto.FLOAT16


@pytest.fixture(scope="module")
def overflowing(store: Store) -> Precise:
    """A model whose first feed-forward reaches beyond fp16, and whose second attention has scores that do."""
    model = bytes_model("2@1")
    first, second = model.root.layers
    with torch.no_grad():
        first.feed_forward.up.weight *= 3e4
        first.feed_forward.down.weight /= 3e4
        second.attention.qkv.weight *= 100
    return stored(store, "precise/overflowing", model)


def half_nodes(bundle: Bundle, stage: str) -> list[onnx.NodeProto]:
    """Nodes of a portable graph that give fp16, casts aside."""
    model = onnx.load(bundle.file(f"stages/{stage}.onnx"), load_external_data=False)
    values = (*model.graph.value_info, *model.graph.output)
    halves = {value.name for value in values if value.type.tensor_type.elem_type == HALF}
    return [node for node in model.graph.node if node.op_type != "Cast" and halves & set(node.output)]


@pytest.mark.parametrize("name", HIERARCHIES)
def test_only_products_gelu_and_attention_are_half(name: str, precise: PrecisionZoo) -> None:
    """Norms, the residual stream, resampling's own arithmetic and whatever goes between stages stay fp32."""
    bundle = precise[name].build(Plan(default="fp16"))
    found = set()
    for entry in bundle.manifest.stages:
        nodes = half_nodes(bundle, entry.spec.name)
        found |= {node.op_type for node in nodes}
        graph = ir.load(bundle.file(entry.graph)).graph
        biases = {value.name for value in graph.initializers.values() if value.dtype == ir.DataType.FLOAT16}
        assert all(biases & set(node.input) for node in nodes if node.op_type in ("Add", "MatMul"))
        rows = [*graph.inputs, *graph.outputs]
        assert {value.dtype for value in rows if not (value.name or "").startswith(("past", "present"))} <= {
            ir.DataType.FLOAT,
            ir.DataType.INT64,
        }
    assert found == {"MatMul", "Add", "Gelu", "CachedAttention"}


@pytest.mark.parametrize("name", HIERARCHIES)
def test_caches_are_half_where_attention_is(name: str, precise: PrecisionZoo) -> None:
    """In every stage that has layers; an engine may keep them otherwise and says so."""
    bundle = precise[name].build(Plan(default="fp16"))
    for entry in bundle.manifest.stages:
        assert entry.spec.cache_dtype == ("float16" if entry.spec.layers else "float32")
        graph = ir.load(bundle.file(entry.graph)).graph
        caches = [value for value in (*graph.inputs, *graph.outputs) if (value.name or "").startswith(("past", "present"))]
        assert len(caches) == 4 * entry.spec.layers
        assert {value.dtype for value in caches} <= {ir.DataType.FLOAT16}


def test_attention_stays_fp32_unless_every_projection_of_the_stage_is_half(precise: PrecisionZoo) -> None:
    """Caches have one dtype in a stage."""
    for other in ("fp32", "int8"):
        plan = Plan(default="fp16", products={"1/stack/layers/1/attention/qkv": other})
        bundle = precise["vanilla"].build(plan)
        assert bundle.manifest.stages[0].spec.cache_dtype == "float32"
        assert "CachedAttention" not in {node.op_type for node in half_nodes(bundle, "1")}


def test_what_would_overflow_stays_fp32_with_its_reason(overflowing: Precise) -> None:
    """The feed-forward reaches beyond the limit on its way up, and so into its way down; the rest is half."""
    products = overflowing.build(Plan(default="fp16")).sidecar("cpu", "1").products
    kept = {p.product: p.reason for p in products if p.obtained != "fp16"}
    up, down = (f"1/stack/layers/0/feed_forward/{part}" for part in ("up", "down"))
    assert set(kept) == {up, down}
    assert re.fullmatch(r"its output reaches [\d,]+, more than 32,752", kept[up])
    assert re.fullmatch(r"its input reaches [\d,]+, more than 32,752", kept[down])
    reached = float(re.findall(r"reaches ([\d,]+)", kept[down])[0].replace(",", ""))
    assert reached == pytest.approx(overflowing.calibration.products[down].absmax.max(), abs=1)
    assert {(p.asked, p.reason) for p in products if p.obtained == "fp16"} == {("fp16", "")}


def test_attention_whose_scores_could_overflow_stays_fp32(overflowing: Precise) -> None:
    """And so do the stage's caches; the projections are half all the same."""
    bundle = overflowing.build(Plan(default="fp16"))
    assert bundle.manifest.stages[0].spec.cache_dtype == "float32"
    nodes = {node.name for node in half_nodes(bundle, "1")}
    assert nodes > {f"1/stack/layers/{layer}/attention/qkv/MatMul" for layer in (0, 1)}
    assert not any("CachedAttention" in name for name in nodes)


@needs_opset_24
def test_a_model_that_would_overflow_still_works(overflowing: Precise) -> None:
    """Portable and on the CPU: near fp32, and most rows very near; where an attention so sharp finds a tie it may turn."""
    bundle, ids = overflowing.build(Plan(default="fp16")), overflowing.ids(1, 60)
    expected = logits(overflowing.full, cpu_engines(overflowing.full), ids)
    for engines in (portable_engines(bundle), cpu_engines(bundle)):
        got = logits(bundle, engines, ids)
        assert rms_distance(got, expected) < 5e-2
        assert np.median(np.abs(got - expected).max(-1)) < 5e-3 * np.abs(expected).max()


@pytest.mark.parametrize(("absmax", "expected"), [(80.0, True), (95.0, False)])
def test_scores_are_bounded_by_the_projections(absmax: float, expected: bool) -> None:
    """Queries and keys of 16 numbers that reach 90 give scores of up to 16 * 90 * 90 / 4, about the limit of 32,752."""
    small, large = (ProductRanges(np.ones(4, np.float32), np.ones(4), output_absmax=reached) for reached in (1.0, absmax))
    calibration = Calibration("", CalibrationSettings(), products={"a": small, "b": large})
    assert attention_is_safe(16, ["a", "b"], calibration) is expected
    assert 16 * 80**2 / 4 < LIMIT < 16 * 95**2 / 4
