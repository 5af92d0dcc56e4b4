"""Every stage, in every precision and dialect, is built by the real TensorRT-RTX, which needs no GPU for that.

Nothing here runs an engine: that takes an RTX GPU (tests/gpu).
"""

from __future__ import annotations

from pathlib import Path

import pytest
from combinations import but_deep, deep
from precisions import CACHE, LOSSY
from specimens import ZOO, Zoo
from tensorrt_builds import NARROW, PreciseModels, assert_sound, look_at, looked_at, types_read
from towers import MixedTower, Tower

from foveal.contract import resident_contract_of
from foveal.export import convert_model
from foveal.export.graphs.dialect import DIALECTS
from foveal.export.tensorrt.profiles import DECODE, PREFILL
from foveal.precision import PRECISIONS, Plan

# Dialects differ in attention and in how rows are appended; how stages are resampled is all the same to them.
KINDS = [(name, "modern") for name in ZOO] + [(name, "classic") for name in ("nested", "empty stacks")]
KINDS_ON_EVERY_CHANGE = [(name, "modern") for name in ("nested", "attention", "empty stacks", "top-down")] + [
    ("nested", "classic")
]
"""Between them every way of resampling and of positions."""
PRECISE = [
    *[("shipped", "modern", precision) for precision in PRECISIONS],
    *[("shipped", "classic", precision) for precision in ("fp16", "int8")],
    *[("resampled", "modern", precision) for precision in ("fp16", "w4")],
    ("nested", "modern", "w8"),
    ("attention", "modern", "int8"),
    *[("vanilla", "classic", precision) for precision in LOSSY],
]
ON_EVERY_CHANGE = [
    *[it for it in PRECISE if it[0] in ("nested", "attention", "vanilla")],
    ("shipped", "modern", "fp16"),
    ("resampled", "modern", "w4"),
]
"""Every precision, dialect and model; the shipped one, whose engines take longest to build, in one precision."""


@pytest.mark.parametrize(("name", "dialect"), but_deep(KINDS_ON_EVERY_CHANGE, KINDS))
def test_all_kinds_of_stages(name: str, dialect: str, zoo: Zoo) -> None:
    """Resampled, nested, empty, of every way of positions: resident, batch and rows dynamic, all other sizes fixed."""
    for stage in looked_at(zoo[name].bundle, dialect):
        assert_sound(stage)
        assert types_read(stage.built.layers.kernels) == {"Float"}


@pytest.mark.parametrize(("name", "dialect", "precision"), but_deep(ON_EVERY_CHANGE, PRECISE))
def test_products_run_in_the_precision_asked_for(name: str, dialect: str, precision: str, models: PreciseModels) -> None:
    """By the types that the kernels of both profiles read; nothing is widened to memory, and caches are what they should be."""
    bundle = models[name].build(Plan(default=precision, cache=CACHE))
    for stage in looked_at(bundle, dialect):
        assert_sound(stage)
        assert types_read(stage.built.layers.kernels) <= {"Float"} | NARROW[precision]
        spec = stage.entry.spec
        assert spec.cache_dtype == ("float16" if precision == "fp16" and spec.layers else "float32")
        assert all(product.is_fused for profile in (DECODE, PREFILL) for product in stage.executed(profile))


@pytest.mark.parametrize("name", ["nested", "vanilla", "empty stacks"])
def test_caches_and_logs_are_updated_in_place(name: str, zoo: Zoo) -> None:
    """TensorScatter becomes TensorRT's cache update, whose input and output share one address: keys, values, rows given."""
    for stage in looked_at(zoo[name].bundle):
        spec, kinds = stage.entry.spec, stage.built.layers.network
        assert kinds.get("KV_CACHE_UPDATE", 0) == 2 * spec.layers + (spec.output == "hidden")
        assert "SCATTER" not in kinds


def test_the_classic_dialect_writes_to_new_memory(zoo: Zoo) -> None:
    """TensorRT 10 has no cache update, so that its caches take turns."""
    for stage in looked_at(zoo["nested"].bundle, "classic"):
        spec, kinds = stage.entry.spec, stage.built.layers.network
        assert kinds.get("SCATTER", 0) == 2 * spec.layers + (spec.output == "hidden")
        assert not {"KV_CACHE_UPDATE", "ATTENTION_INPUT"} & kinds.keys()


def test_a_decode_step_attends_in_one_kernel(models: PreciseModels) -> None:
    """Scores never reach memory, and no cache is copied before it is read."""
    bundle = models["shipped"].build(Plan(default="fp16", cache=CACHE))
    for stage in looked_at(bundle):
        attentions = [kernel for kernel in stage.built.layers.of_profile(DECODE) if kernel.label == "gemv_mha_v1"]
        assert len(attentions) == stage.entry.spec.layers
        assert types_read(attentions) == {"Half"}
        for kernel in attentions:
            assert {tensor.name.partition(".")[0] for tensor in kernel.inputs if len(tensor.shape) == 4} >= {"present"}


@pytest.mark.parametrize("precision", but_deep(["fp16"], ["fp32", "fp16", "int8"]))
def test_weights_are_stored_once(precision: str, models: PreciseModels) -> None:
    """Though there are two profiles: neither is of static shapes alone."""
    bundle = models["shipped"].build(Plan(default=precision, cache=CACHE))
    for stage in looked_at(bundle):
        assert stage.built.engine.nbytes < 1.1 * stage.entry.weight_bytes + 6e6


@pytest.mark.parametrize(
    ("name", "precision", "type_read"),
    [
        *(("vanilla", "fp16", "Half"), ("vanilla", "w8", "Int32"), ("vanilla", "w4", "Int32")),
        pytest.param("shipped", "int8", "Int32", marks=deep),
    ],
)
def test_tables_in_fewer_bytes_build_too(name: str, precision: str, type_read: str, models: PreciseModels) -> None:
    """TensorRT has no lookup in bytes: it makes them Int32, so that only fp16 tables are smaller in its engines."""
    bundle = models[name].build(Plan(default=precision, embedding=True, cache=CACHE))
    stage, model = look_at(bundle, 0), bundle.manifest.model
    assert_sound(stage)
    assert stage.entry.table_bytes > 0
    kernels = stage.built.layers.of_profile(DECODE)
    lookups = [kernel for kernel in kernels if any(node.endswith("/entry/tokens/Gather/rows") for node in kernel.nodes)]
    tables = {tensor.type for kernel in lookups for tensor in kernel.constants if tensor.shape == (model.vocab_size, model.dim)}
    assert tables == {type_read}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("tower", [Tower(), MixedTower()], ids=["tower", "mixed tower"])
def test_layers_of_every_kind(tower: Tower | MixedTower, dialect: str, tmp_path: Path) -> None:
    """Heads that share keys and values, windows, gates; a decode step attends in one kernel, and writes caches in place."""
    (stage,) = looked_at(convert_model(tower, tmp_path / "tower"), dialect)
    assert stage.built.complaints == ()
    assert set(stage.built.inputs) == {tensor.name for tensor in resident_contract_of(stage.entry.spec).inputs}
    if dialect == "modern":
        attentions = [kernel for kernel in stage.built.layers.of_profile(DECODE) if kernel.label == "gemv_mha_v1"]
        assert len(attentions) == len(stage.entry.spec.attentions) == 2
        written = [cache for cache in stage.entry.spec.caches if not cache.recurrent]
        assert stage.built.layers.network["KV_CACHE_UPDATE"] == len(written)


def test_precisions_side_by_side(models: PreciseModels) -> None:
    """Products of one stage need not be alike."""
    chosen = {"attention/qkv": "int8", "attention/out": "fp16", "feed_forward/up": "w4", "feed_forward/down": "w8"}
    products = {f"1/stack/layers/1/{place}": precision for place, precision in chosen.items()}
    bundle = models["vanilla"].build(Plan(default="fp32", products=products, cache=CACHE))
    (stage,) = looked_at(bundle)
    assert_sound(stage)
    assert sorted(it.precision for it in stage.executed(DECODE)) == ["fp16", *["fp32"] * 5, "int8", "w4", "w8"]


def test_the_function_bodies_keep_their_names(zoo: Zoo) -> None:
    """Shorten and Lengthen can be told apart in the engine."""
    stage = look_at(zoo["linear"].bundle, 1)
    nodes = {node for kernel in stage.built.layers.kernels for node in kernel.nodes}
    assert any("Shorten" in node for node in nodes)
    assert any("Lengthen" in node for node in nodes)
