"""Cached attention on ONNX Runtime's CPU kernel, against its definition in float64."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foveal.contract import InputSpec, StageSpec, layer_caches
from foveal.errors import BuildError
from foveal.export.compile import compile_stage
from foveal.export.cpu.attention import lower_attention, padded_head_dim
from foveal.export.cpu.counters import drop_position
from foveal.export.cpu.lower import OPSET, OPSET_INT8_CACHES
from foveal.export.graphs.functions import cached_attention
from foveal.precision import CacheScale
from foveal.runtime.engines.counters import FEW_ROWS

HEADS, CAPACITY = 2, 24
SCALE = CacheScale(key=0.02, value=0.03)
Array = npt.NDArray[np.float64]


def stage(head_dim: int, layers: int = 1) -> StageSpec:
    return StageSpec(
        name="1",
        stride=1,
        inputs=(InputSpec(kind="tokens"),),
        output="hidden",
        width=HEADS * head_dim,
        layers=layers,
        caches=layer_caches(layers, HEADS, head_dim),
        parameters=0,
    )


def portable(head_dim: int, batch: int) -> ir.Model:
    """One `CachedAttention` and nothing else."""
    cache = f"float[{batch},{HEADS},{CAPACITY},{head_dim}]"
    text = f"""<ir_version: 10, opset_import: ["" : 24, "foveal" : 1]>
    stage (float[{batch},L,{3 * HEADS * head_dim}] qkv, {cache} past_key_values.0.key, {cache} past_key_values.0.value,
           int64[{batch}] position, bool[{batch},1,L,{CAPACITY}] mask)
        => (float[{batch},L,{HEADS * head_dim}] y, {cache} present.0.key, {cache} present.0.value)
    {{ y, present.0.key, present.0.value = foveal.CachedAttention <heads = {HEADS}, scale = {head_dim**-0.5}>
        (qkv, past_key_values.0.key, past_key_values.0.value, position, mask) }}"""
    text = text.replace("past_key_values.0.", "past_").replace("present.0.", "present_")
    model = onnx.parser.parse_model(text)
    model.functions.append(cached_attention(24))
    lowered = ir.serde.deserialize_model(model)
    lowered.graph[0].name = "1/stack/layers/0/attention/CachedAttention"
    for value in (*lowered.graph.inputs, *lowered.graph.outputs):
        value.name = value.name.replace("past_", "past_key_values.0.").replace("present_", "present.0.")
    return lowered


@functools.cache
def engine(head_dim: int, batch: int, has_int8_caches: bool) -> onnxruntime.InferenceSession:
    model, opset = portable(head_dim, batch), OPSET_INT8_CACHES if has_int8_caches else OPSET
    for imports in (model.opset_imports, *(function.opset_imports for function in model.functions.values())):
        imports[""] = opset
    lower_attention(model, stage(head_dim), opset, (SCALE,) if has_int8_caches else ())
    drop_position(model)
    model.graph.inputs.remove(next(value for value in model.graph.inputs if value.name == "mask"))
    return onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])


class Attention:
    """An engine with its caches, bound in place as the runtime binds them."""

    def __init__(self, head_dim: int, batch: int, has_int8_caches: bool) -> None:
        self.session = engine(head_dim, batch, has_int8_caches)
        self.width = HEADS * head_dim
        shape = (batch, HEADS, CAPACITY, padded_head_dim(head_dim))
        self.caches = {part: np.zeros(shape, np.int8 if has_int8_caches else np.float32) for part in ("key", "value")}

    def __call__(self, qkv: Array, position: int, few: int = FEW_ROWS) -> npt.NDArray[np.float32]:
        binding = self.session.io_binding()
        batch, rows, _ = qkv.shape
        given = {
            "qkv": np.ascontiguousarray(qkv, np.float32),
            "position": np.full(batch, position),
            "last_row": np.full(batch, position + rows - 1, np.int32),
            "total": np.array([position + rows], np.int32),
            "is_chunk": np.array(rows > few),
        }
        y = np.empty((batch, rows, self.width), np.float32)
        for name in {value.name for value in self.session.get_inputs()} & given.keys():
            array = given[name]
            binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        for part, cache in self.caches.items():
            binding.bind_input(f"past_key_values.0.{part}", "cpu", 0, cache.dtype, cache.shape, cache.ctypes.data)
            binding.bind_output(f"present.0.{part}", "cpu", 0, cache.dtype, cache.shape, cache.ctypes.data)
        binding.bind_output("y", "cpu", 0, y.dtype, y.shape, y.ctypes.data)
        self.session.run_with_iobinding(binding)
        return y


def rounded(rows: Array, step: float) -> Array:
    return np.clip(np.rint(rows / step), -128, 127) * step


def definition(qkv: Array, has_int8_caches: bool) -> Array:
    """Causal attention over all rows `[B, T, 3 H Dh]`, keys and values rounded as the caches round them."""
    batch, rows, width = qkv.shape
    heads = qkv.reshape(batch, rows, 3 * HEADS, -1).transpose(0, 2, 1, 3)
    query, key, value = np.split(heads, 3, axis=1)
    if has_int8_caches:
        key, value = rounded(key, SCALE.key), rounded(value, SCALE.value)
    scores = query @ key.transpose(0, 1, 3, 2) * query.shape[-1] ** -0.5
    scores[..., ~np.tri(rows, dtype=bool)] = -np.inf
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    found = (weights / weights.sum(-1, keepdims=True)) @ value
    return found.transpose(0, 2, 1, 3).reshape(batch, rows, width // 3)


def random_qkv(head_dim: int, batch: int, rows: int, seed: int = 0) -> Array:
    """Away from the borders of rounding, where float32 and float64 may part."""
    qkv = np.random.default_rng(seed).standard_normal((batch, rows, 3 * HEADS * head_dim)).astype(np.float32)
    return np.round(qkv.astype(np.float64) / 0.001) * 0.001 + 0.0003


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(1, FEW_ROWS + 2), min_size=1, max_size=8),
    st.sampled_from([1, 4, FEW_ROWS]),
    st.sampled_from([8, 10, 16]),
    st.booleans(),
    st.integers(0, 99),
)
def test_any_chunks_give_what_attention_is_defined_as_by_whichever_way_they_go(
    chunks: list[int], few: int, head_dim: int, has_int8_caches: bool, seed: int
) -> None:
    attention, position, got = Attention(head_dim, 1, has_int8_caches), 0, []
    qkv = random_qkv(head_dim, 1, min(sum(chunks), CAPACITY), seed)
    for rows in chunks:
        chunk = qkv[:, position : position + rows]
        if chunk.shape[1]:
            got.append(attention(chunk, position, few))
        position += rows
    np.testing.assert_allclose(np.concatenate(got, 1), definition(qkv, has_int8_caches), atol=2e-6)


@pytest.mark.parametrize("has_int8_caches", [False, True])
def test_a_batch_is_decoded_row_by_row(has_int8_caches: bool) -> None:
    qkv = random_qkv(10, 3, CAPACITY)
    attention = Attention(10, 3, has_int8_caches)
    got = np.concatenate([attention(qkv[:, row : row + 1], row) for row in range(CAPACITY)], 1)
    np.testing.assert_allclose(got, definition(qkv, has_int8_caches), atol=2e-6)


def test_int8_caches_hold_the_rounded_rows_in_place() -> None:
    qkv = random_qkv(8, 1, 9)
    attention = Attention(8, 1, True)
    attention(qkv[:, :5], 0)
    for row in range(5, 9):
        attention(qkv[:, row : row + 1], row)
    keys = qkv.reshape(1, 9, 3 * HEADS, 8)[:, :, HEADS : 2 * HEADS].transpose(0, 2, 1, 3)
    np.testing.assert_array_equal(attention.caches["key"][:, :, :9] * SCALE.key, rounded(keys, SCALE.key))
    assert not attention.caches["key"][:, :, 9:].any()


def test_a_graph_with_other_attention_than_its_stage_declares_is_refused() -> None:
    with pytest.raises(BuildError, match="has 1 CachedAttention nodes, expected one for each of its 2 layers; convert"):
        lower_attention(portable(8, 1), stage(8, layers=2), OPSET)


def test_int8_caches_are_not_built_for_a_library_without_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "__version__", "1.23.2")
    with pytest.raises(
        BuildError, match="int8 caches need onnxruntime 1.28 or later, got 1.23.2; upgrade it, or build with --"
    ):
        compile_stage(tmp_path, stage(8), "cpu", cache_scales=(SCALE,))
