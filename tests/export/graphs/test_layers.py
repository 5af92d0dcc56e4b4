"""Layers of every kind as graphs: what they compute in both dialects and in the CPU's form, against their whole forward."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from specimens import random_ids
from towers import DIM, LLAMA, VOCABULARY, MixedTower, Tower, layer_configs

from foveal.export.cpu.attention import cache_widths
from foveal.export.cpu.lower import lower
from foveal.export.graphs.change_dialect import change_dialect
from foveal.export.graphs.dialect import CLASSIC, DIALECTS, MODERN
from foveal.export.graphs.export_stage import export_stage
from foveal.export.graphs.saving import save_graph
from foveal.models.config import LayerConfig
from foveal.runtime.engines.onnxruntime import OnnxRuntimeEngine
from foveal.runtime.rows import Array, Block
from foveal.sidecar import EngineSidecar

CAPACITY = 24
FORMS = (*DIALECTS, "cpu")


def graphs(model: Tower | MixedTower, directory: Path) -> Iterator[tuple[str, Path]]:
    """The stage of a model in every form, exported once."""
    stage, modern = model.stages()[0], directory / "modern.onnx"
    export_stage(stage, modern, MODERN)
    yield "modern", modern
    other = ir.load(modern)
    change_dialect(other, CLASSIC)
    save_graph(other, directory / "classic.onnx")
    yield "classic", directory / "classic.onnx"
    lower(modern, directory / "cpu.onnx", stage.spec)
    yield "cpu", directory / "cpu.onnx"


def engine(model: Tower | MixedTower, form: str, path: Path) -> OnnxRuntimeEngine:
    spec = model.stages()[0].spec
    widths = cache_widths(spec) if form == "cpu" else tuple(cache.width for cache in spec.caches)
    sidecar = EngineSidecar(
        target="cpu",
        stage=spec.name,
        builder="foveal",
        precision_asked="fp32",
        precision_obtained="fp32",
        graph_sha256="",
        cache_widths=widths,
        batch_one_chunks=form == "cpu",
    )
    return OnnxRuntimeEngine(spec, path, sidecar, threads=1)


def whole(model: Tower | MixedTower, ids: Array) -> Array:
    with torch.no_grad():
        logits: Array = model(torch.from_numpy(ids)).numpy()
    return logits


def in_chunks(found: OnnxRuntimeEngine, ids: Array, chunks: list[int]) -> Array:
    """Logits of a batch `[B, L]`, as many rows a call as the chunks say; then again from the middle on."""
    batch, length = ids.shape
    bound, logits, position = found.bind(batch, CAPACITY), np.zeros((batch, length, VOCABULARY), np.float32), 0
    for rows in chunks:
        end = min(position + rows, length)
        if position < end:
            part, every = np.zeros((batch, end - position, VOCABULARY), np.float32), np.arange(end - position)
            given = Block.of(np.ascontiguousarray(ids[:, position:end]))
            bound.run(position, end - position, [given], Block.of(part), Block.of(every))
            logits[:, position:end] = part
        position = end
    return logits[:, :position]


@settings(deadline=None, max_examples=6, suppress_health_check=list(HealthCheck))
@given(layer_configs(), st.lists(st.integers(1, 9), min_size=3, max_size=8), st.integers(1, 2))
def test_any_layers_compute_the_same_in_every_form(
    tmp_path_factory: pytest.TempPathFactory, config: LayerConfig, chunks: list[int], batch: int
) -> None:
    model, ids = Tower(config), random_ids(batch, CAPACITY, VOCABULARY)
    directory = tmp_path_factory.mktemp("layers")
    expected = whole(model, ids)
    for form, path in graphs(model, directory):
        got = in_chunks(engine(model, form, path), ids, chunks)
        np.testing.assert_allclose(got, expected[:, : got.shape[1]], atol=5e-5 * np.abs(expected).max(), err_msg=form)
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[MixedTower, dict[str, Path]]:
    """Layers of which two have attention, one has a cache of its own, and one a recurrent state."""
    model = MixedTower()
    return model, dict(graphs(model, tmp_path_factory.mktemp("mixed")))


@pytest.mark.parametrize("form", FORMS)
def test_layers_without_attention_leave_gaps(mixed: tuple[MixedTower, dict[str, Path]], form: str) -> None:
    model, paths = mixed
    ids = random_ids(2, CAPACITY, VOCABULARY)
    got = in_chunks(engine(model, form, paths[form]), ids, [7, 1, 1, 3, 12])
    expected = whole(model, ids)
    np.testing.assert_allclose(got, expected, atol=5e-5 * np.abs(expected).max())


def test_attention_is_the_kernels_beside_other_caches(mixed: tuple[MixedTower, dict[str, Path]]) -> None:
    """Other caches stay as they are declared, and no mask is made."""
    _, paths = mixed
    lowered = ir.load(paths["cpu"])
    (body,) = [function for function in lowered.functions.values() if function.name == "CachedAttention"]
    assert [node.op_type for node in body if node.domain == "com.microsoft"] == ["GroupQueryAttention"]
    past = [value for value in lowered.graph.inputs if (value.name or "").startswith("past")]
    assert [(value.name, value.shape and value.shape[3]) for value in past] == [
        ("past_key_values.0.rows", DIM),
        ("past_key_values.1.key", 8),
        ("past_key_values.1.value", 8),
        ("past_key_values.2.sum", DIM),
        ("past_key_values.3.key", 8),
        ("past_key_values.3.value", 8),
    ]
    assert not any(node.op_type in ("LessOrEqual", "And") for node in lowered.graph)


def test_sequences_of_a_batch_stand_at_positions_of_their_own(mixed: tuple[MixedTower, dict[str, Path]]) -> None:
    model, paths = mixed
    ids = random_ids(3, CAPACITY, VOCABULARY)
    expected, found = whole(model, ids), engine(model, "cpu", paths["cpu"])
    begun = np.array([4, 9, 2])
    bound, caches = found.bind(3, CAPACITY), []
    for b, count in enumerate(begun):
        alone = found.bind(1, CAPACITY)
        part = np.zeros((1, count, VOCABULARY), np.float32)
        alone.run(0, int(count), [Block.of(ids[b : b + 1, :count].copy())], Block.of(part), Block.of(np.arange(count)))
        caches.append(alone.caches)
    for index, cache in enumerate(bound.caches):
        cache[...] = np.concatenate([of[index] for of in caches])
    for step in range(8):
        newest = begun + step
        given = np.ascontiguousarray(ids[np.arange(3), newest][:, None])
        part = np.zeros((3, 1, VOCABULARY), np.float32)
        bound.run_each(newest, [Block.of(given)], Block.of(part), Block.of(np.arange(1)))
        np.testing.assert_allclose(part[:, 0], expected[np.arange(3), newest], atol=5e-5 * np.abs(expected).max())


def test_one_mask_serves_all_layers_with_the_same_window(tmp_path: Path) -> None:
    """And nodes name what differs from attention over all rows with as many heads; pairs are put together in the weights."""
    export_stage(Tower(LLAMA).stages()[0], tmp_path / "stage.onnx", MODERN)
    graph = ir.load(tmp_path / "stage.onnx").graph
    nodes = [node for node in graph if node.op_type == "CachedAttention"]
    assert len({node.inputs[4] for node in nodes}) == 1
    for node in nodes:
        named = {name: value.value for name, value in node.attributes.items()}
        assert named == {"heads": 4, "scale": pytest.approx(8**-0.5), "kv_heads": 2, "window": 5}
    assert not {"Slice", "Gather"} & {node.op_type for node in graph if "attention" in (node.name or "")}
