"""Cached attention on ONNX Runtime's CPU kernel, against its definition in float64."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foveal.contract import CacheSpec, InputSpec, StageSpec, layer_caches
from foveal.errors import BuildError
from foveal.export.compile import compile_stage
from foveal.export.cpu.attention import lower_attention, padded_head_dim
from foveal.export.cpu.counters import drop_position
from foveal.export.cpu.lower import OPSET, OPSET_INT8_CACHES
from foveal.export.graphs.functions import cached_attention
from foveal.precision import CacheScale
from foveal.runtime.engines.counters import FEW_ROWS

HEADS, CAPACITY = 4, 24
SCALE = CacheScale(key=0.02, value=0.03)
Array = npt.NDArray[np.float64]


class Kind(NamedTuple):
    """What attentions differ in."""

    head_dim: int
    kv_heads: int = HEADS
    window: int | None = None

    @property
    def packed(self) -> int:
        """Columns of queries, keys and values."""
        return (HEADS + 2 * self.kv_heads) * self.head_dim


def stage(kind: Kind, layers: int = 1) -> StageSpec:
    return StageSpec(
        name="1",
        stride=1,
        inputs=(InputSpec(kind="tokens"),),
        output="hidden",
        width=HEADS * kind.head_dim,
        layers=layers,
        caches=layer_caches(layers, kind.kv_heads, kind.head_dim),
        parameters=0,
    )


def portable(kind: Kind, batch: int) -> ir.Model:
    """One `CachedAttention` and nothing else."""
    head_dim, cache = kind.head_dim, f"float[{batch},{kind.kv_heads},{CAPACITY},{kind.head_dim}]"
    extra = f", kv_heads = {kind.kv_heads}" if kind.kv_heads != HEADS else ""
    extra += f", window = {kind.window}" if kind.window is not None else ""
    text = f"""<ir_version: 10, opset_import: ["" : 24, "foveal" : 1]>
    stage (float[{batch},L,{kind.packed}] qkv, {cache} past_key_values.0.key, {cache} past_key_values.0.value,
           int64[{batch}] position, bool[{batch},1,L,{CAPACITY}] mask)
        => (float[{batch},L,{HEADS * head_dim}] y, {cache} present.0.key, {cache} present.0.value)
    {{ y, present.0.key, present.0.value = foveal.CachedAttention <heads = {HEADS}, scale = {head_dim**-0.5}{extra}>
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
def engine(kind: Kind, batch: int, has_int8_caches: bool) -> onnxruntime.InferenceSession:
    model, opset = portable(kind, batch), OPSET_INT8_CACHES if has_int8_caches else OPSET
    for imports in (model.opset_imports, *(function.opset_imports for function in model.functions.values())):
        imports[""] = opset
    lower_attention(model, stage(kind), opset, (SCALE,) if has_int8_caches else ())
    drop_position(model)
    model.graph.inputs.remove(next(value for value in model.graph.inputs if value.name == "mask"))
    return onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])


class Attention:
    """An engine with its caches, bound in place as the runtime binds them."""

    def __init__(self, kind: Kind, batch: int, has_int8_caches: bool) -> None:
        self.session = engine(kind, batch, has_int8_caches)
        self.width = HEADS * kind.head_dim
        shape = (batch, kind.kv_heads, CAPACITY, padded_head_dim(kind.head_dim))
        self.caches = {part: np.zeros(shape, np.int8 if has_int8_caches else np.float32) for part in ("key", "value")}

    def __call__(self, qkv: Array, position: int | Array, few: int = FEW_ROWS) -> npt.NDArray[np.float32]:
        """Rows `[B, L, ...]` at a position that is one for all, or one each."""
        binding = self.session.io_binding()
        batch, rows, _ = qkv.shape
        firsts = np.broadcast_to(np.asarray(position, np.int64), batch)
        given = {
            "qkv": np.ascontiguousarray(qkv, np.float32),
            "position": firsts.copy(),
            "last_row": (firsts + rows - 1).astype(np.int32),
            "total": np.array([firsts.max() + rows], np.int32),
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


def definition(qkv: Array, has_int8_caches: bool, kind: Kind) -> Array:
    """Causal attention over all rows `[B, T, (H + 2 Hkv) Dh]`, keys and values rounded as the caches round them."""
    batch, rows, _ = qkv.shape
    heads = qkv.reshape(batch, rows, -1, kind.head_dim).transpose(0, 2, 1, 3)
    query, key, value = np.split(heads, [HEADS, HEADS + kind.kv_heads], axis=1)
    if has_int8_caches:
        key, value = rounded(key, SCALE.key), rounded(value, SCALE.value)
    key, value = (np.repeat(part, HEADS // kind.kv_heads, 1) for part in (key, value))
    scores = query @ key.transpose(0, 1, 3, 2) * query.shape[-1] ** -0.5
    seen = np.tri(rows, dtype=bool) & ~np.tri(rows, k=-(kind.window or rows), dtype=bool)
    scores[..., ~seen] = -np.inf
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    found = (weights / weights.sum(-1, keepdims=True)) @ value
    return found.transpose(0, 2, 1, 3).reshape(batch, rows, HEADS * kind.head_dim)


def random_qkv(kind: Kind, batch: int, rows: int, seed: int = 0) -> Array:
    """Away from the borders of rounding, where float32 and float64 may part."""
    qkv = np.random.default_rng(seed).standard_normal((batch, rows, kind.packed)).astype(np.float32)
    return np.round(qkv.astype(np.float64) / 0.001) * 0.001 + 0.0003


kinds = st.builds(
    Kind,
    head_dim=st.sampled_from([8, 10, 16]),
    kv_heads=st.sampled_from([1, 2, HEADS]),
    window=st.sampled_from([None, 1, 2, 5, CAPACITY]),
)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(1, FEW_ROWS + 2), min_size=1, max_size=8),
    st.sampled_from([1, 4, FEW_ROWS]),
    kinds,
    st.booleans(),
    st.integers(0, 99),
)
def test_any_chunks_give_what_attention_is_defined_as_by_whichever_way_they_go(
    chunks: list[int], few: int, kind: Kind, has_int8_caches: bool, seed: int
) -> None:
    attention, position, got = Attention(kind, 1, has_int8_caches), 0, []
    qkv = random_qkv(kind, 1, min(sum(chunks), CAPACITY), seed)
    for rows in chunks:
        chunk = qkv[:, position : position + rows]
        if chunk.shape[1]:
            got.append(attention(chunk, position, few))
        position += rows
    np.testing.assert_allclose(np.concatenate(got, 1), definition(qkv, has_int8_caches, kind), atol=2e-6)


@pytest.mark.parametrize("kind", [Kind(10), Kind(10, kv_heads=2, window=5)])
@pytest.mark.parametrize("has_int8_caches", [False, True])
def test_a_batch_is_decoded_row_by_row(has_int8_caches: bool, kind: Kind) -> None:
    qkv = random_qkv(kind, 3, CAPACITY)
    attention = Attention(kind, 3, has_int8_caches)
    got = np.concatenate([attention(qkv[:, row : row + 1], row) for row in range(CAPACITY)], 1)
    np.testing.assert_allclose(got, definition(qkv, has_int8_caches, kind), atol=2e-6)


@pytest.mark.parametrize("kind", [Kind(8), Kind(8, kv_heads=1, window=4)])
@pytest.mark.parametrize("has_int8_caches", [False, True])
def test_sequences_of_a_batch_stand_at_positions_of_their_own(has_int8_caches: bool, kind: Kind) -> None:
    """A window ends at the row of each, not at that of the longest."""
    qkv, firsts = random_qkv(kind, 3, CAPACITY), np.array([4, 13, 1])
    expected, attention = definition(qkv, has_int8_caches, kind), Attention(kind, 3, has_int8_caches)
    for row in range(firsts.max()):
        attention(qkv[:, row : row + 1], row)
    for step in range(10):
        rows, each = firsts + step, np.arange(3)
        got = attention(qkv[each, rows][:, None], rows)
        np.testing.assert_allclose(got[:, 0], expected[each, rows], atol=2e-6)


def test_int8_caches_hold_the_rounded_rows_in_place() -> None:
    kind = Kind(8, kv_heads=2, window=3)
    qkv = random_qkv(kind, 1, 9)
    attention = Attention(kind, 1, True)
    attention(qkv[:, :5], 0)
    for row in range(5, 9):
        attention(qkv[:, row : row + 1], row)
    keys = qkv.reshape(1, 9, HEADS + 4, 8)[:, :, HEADS : HEADS + 2].transpose(0, 2, 1, 3)
    np.testing.assert_array_equal(attention.caches["key"][:, :, :9] * SCALE.key, rounded(keys, SCALE.key))
    assert not attention.caches["key"][:, :, 9:].any()


def test_a_graph_with_other_attention_than_its_stage_declares_is_refused() -> None:
    with pytest.raises(BuildError, match="has 1 CachedAttention nodes, expected one for each of the 2 layers whose keys"):
        lower_attention(portable(Kind(8), 1), stage(Kind(8), layers=2), OPSET)


def test_heads_of_several_widths_in_a_stage_are_refused() -> None:
    caches = tuple(CacheSpec(name=f"0.{part}", heads=HEADS, width=width) for part, width in (("key", 8), ("value", 16)))
    with pytest.raises(BuildError, match="has heads of 8 and 16 columns, expected one width"):
        lower_attention(portable(Kind(8), 1), msgspec.structs.replace(stage(Kind(8)), caches=caches), OPSET)


def test_int8_caches_are_not_built_for_a_library_without_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "__version__", "1.23.2")
    with pytest.raises(
        BuildError, match="int8 caches need onnxruntime 1.28 or later, got 1.23.2; upgrade it, or build with --"
    ):
        compile_stage(tmp_path, stage(Kind(8)), "cpu", cache_scales=(SCALE,))
