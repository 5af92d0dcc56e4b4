"""Prefixes of a stage: they compute what the layers in front of the cut compute, and name the layer that differs."""

from __future__ import annotations

import copy
from pathlib import Path

import msgspec
import numpy as np
import onnx_ir as ir
import pytest
import torch
from broken_bundles import with_wrong_weight
from precisions import PrecisionZoo, needs_opset_24
from specimens import Zoo, random_ids, random_model
from torch import nn

from foveal import ConfigError, EquivalenceError
from foveal.bundle import Bundle, StageEntry
from foveal.contract import CacheSpec, contract_of
from foveal.export import compare, compare_cuts, convert_model
from foveal.export.comparison.compare_layers import cut_system
from foveal.export.comparison.layer_prefixes import Cut, cuts_of, write_prefix
from foveal.export.comparison.systems import System
from foveal.export.comparison.teacher_forcing import record
from foveal.export.comparison.torch_engine import TorchEngine
from foveal.models.architecture import Stage
from foveal.models.layers.stack_stage import StackStage
from foveal.precision import Plan
from foveal.runtime.session import Session

TOKENS = 37


def test_cuts_are_named_after_places(zoo: Zoo) -> None:
    """Two for each layer, and what comes in front of the first; a stage without layers has none."""
    cuts = _cuts(zoo["nested"].bundle, "8")
    assert [cut.name for cut in cuts] == [
        "8/entry",
        "8/stack/layers/0/attention",
        "8/stack/layers/0/feed_forward",
        "8/stack/layers/1/attention",
        "8/stack/layers/1/feed_forward",
    ]
    assert [cut.layers for cut in cuts] == [0, 1, 1, 2, 2]
    assert _cuts(zoo["empty stacks"].bundle, "1.pre") == []


@pytest.mark.parametrize(("name", "stage"), [("nested", "8"), ("nested", "1.post"), ("linear", "1.pre"), ("attention", "3")])
def test_a_prefix_is_a_stage(name: str, stage: str, zoo: Zoo, tmp_path: Path) -> None:
    """Its graph has the inputs and outputs that a stage of so many layers has, and nothing else as an output."""
    bundle = zoo[name].bundle
    entry = _entry(bundle, stage)
    for cut in _cuts(bundle, stage):
        spec, nodes = write_prefix(bundle.file(entry.graph), tmp_path / "prefix.onnx", entry.spec, cut)
        graph = ir.load(tmp_path / "prefix.onnx").graph
        contract = contract_of(spec)
        assert [value.name for value in graph.inputs] == [tensor.name for tensor in contract.inputs]
        assert [value.name for value in graph.outputs] == [tensor.name for tensor in contract.outputs]
        assert nodes == {node.name for node in graph}
        shapes = {value.name: [str(size) for size in value.shape or ()] for value in graph.outputs}
        assert shapes == {tensor.name: [str(size) for size in tensor.shape] for tensor in contract.outputs}
        assert sum(name.endswith("CachedAttention") or "CachedAttention_" in name for name in nodes) == cut.layers


@needs_opset_24
@pytest.mark.parametrize(("name", "stage"), [("nested", "8"), ("nested", "1.post"), ("linear", "5"), ("attention", "1.pre")])
def test_a_prefix_computes_what_its_layers_do(name: str, stage: str, zoo: Zoo, tmp_path: Path) -> None:
    """Against the layers in PyTorch, for the entry and every feed forward; the portable graph and the engine."""
    specimen, ids = zoo[name], random_ids(1, TOKENS)
    stages = specimen.model.stages()
    index = [found.spec.name for found in stages].index(stage)
    for cut in _cuts(specimen.bundle, stage):
        if cut.name.endswith("/attention"):
            continue
        for target in ("portable", "cpu"):
            system = cut_system(System(specimen.bundle, target), stage, cut, tmp_path / f"{target}{cut.name.replace('/', '_')}")
            prefix = system.bundle.manifest.stages[-1].spec
            module = stages[index].module
            truncated = StackStage(module.entry, _first(module.stack, cut.layers), nn.Identity())
            engines = [TorchEngine(found) for found in (*stages[:index], Stage(prefix, truncated))]
            with torch.no_grad():
                expected = record(Session(engines, specimen.bundle.manifest.model, 1, TOKENS), ids, [1] * TOKENS)
            got = record(system.opener(TOKENS)(), ids, [1] * TOKENS)
            np.testing.assert_allclose(got.outputs[-1], expected.outputs[-1], atol=1e-5)


def _first(stack: nn.Module, layers: int) -> nn.Module:
    """A stack of the first layers of another."""
    shared = copy.copy(stack)
    shared._modules = {**stack._modules, "layers": nn.ModuleList(list(stack.layers)[:layers])}
    return shared


@pytest.mark.parametrize(
    ("product", "cut"),
    [
        ("8/stack/layers/0/attention/out", "8/stack/layers/0/attention"),
        ("8/stack/layers/0/feed_forward/up", "8/stack/layers/0/feed_forward"),
        ("8/stack/layers/1/attention/qkv", "8/stack/layers/1/attention"),
        ("8/stack/layers/1/feed_forward/down", "8/stack/layers/1/feed_forward"),
    ],
)
def test_the_first_layer_that_differs(product: str, cut: str, zoo: Zoo, tmp_path: Path) -> None:
    """Everything in front of it is equal to the last bit."""
    good = zoo["nested"].bundle
    wrong = with_wrong_weight(good, "stages/8.onnx", tmp_path / "wrong", product)
    report = compare_cuts(good, "8", ["cpu"], other=wrong)
    names = list(dict.fromkeys(found.name for found in report.stages))
    assert names == [*(found.name for found in _cuts(good, "8")), "8/exit"]
    failed = {found.name for found in report.stages if found.where is not None}
    assert failed == set(names[names.index(cut) :])
    assert all(found.max_error == 0 for found in report.stages if found.name not in failed)
    assert (report.inside, report.system) == ("8", ())
    with pytest.raises(
        EquivalenceError, match=f"differs from .*: {cut}, token 0, row 0, token by token; largest error .*1e-04$"
    ):
        report.require_equal()


@needs_opset_24
@pytest.mark.parametrize(
    ("name", "stage"), [("attention", "3"), ("empty stacks", "2.pre"), ("wide", "1.post"), ("linear", "1.pre")]
)
def test_cuts_of_all_kinds_of_stages(name: str, stage: str, zoo: Zoo) -> None:
    """Resampling with weights, rotary and learned positions, padded heads, no layers, the head: engines and graphs agree."""
    report = compare_cuts(zoo[name].bundle, stage)
    report.require_equal()
    assert report.stages[-1].name == f"{stage}/exit"


@pytest.mark.parametrize("precision", ["int8", "w4", "fp16"])
def test_cuts_of_other_precisions(precision: str, precise: PrecisionZoo) -> None:
    """Prefixes are built as the stage was: kernels and int8 caches included, so that the last is the stage."""
    specimen = precise["resampled"]
    small = specimen.build(Plan(default=precision))
    report = compare_cuts(specimen.full, "2", ["cpu"], other=small, texts=[specimen.text], tokens=40)
    assert report.tolerance is None
    assert report.stages[2].max_error > 0
    stages = compare(specimen.full, other=small, texts=[specimen.text], tokens=40).stages
    whole = {found.decoded: found for found in stages if found.name == "2"}
    assert all(found.max_error == pytest.approx(whole[found.decoded].max_error, rel=0.05) for found in report.stages[-2:])


def test_cuts_of_another_target(zoo: Zoo) -> None:
    """Whose engines the bundle need not have: prefixes are built for it, here in the resident form."""
    report = compare_cuts(zoo["nested"].bundle, "2.post", ["cpu", "cuda"], provider="cpu")
    report.require_equal()
    assert report.other.endswith("(fp32, cuda on cpu)")
    assert len(report.stages) == 2 * (3 + 1)


def test_what_can_t_be_cut(zoo: Zoo, tmp_path: Path) -> None:
    """A stage that is not there, and a graph that is not as foveal writes them."""
    bundle = zoo["nested"].bundle
    with pytest.raises(ConfigError, match='has no stage "16"; expected one of 1.pre, 2.pre, 8, 2.post, 1.post'):
        compare_cuts(bundle, "16")
    cut = _cuts(bundle, "8")[0]._replace(node="8/nowhere")
    with pytest.raises(
        ConfigError, match='the stage graph has no node "8/nowhere", so it can\'t be cut at 8/entry; convert the'
    ):
        write_prefix(bundle.file("stages/8.onnx"), tmp_path / "x.onnx", _entry(bundle, "8").spec, cut)


def test_what_is_no_stack_of_layers(zoo: Zoo, tmp_path: Path) -> None:
    """Another module has other places; a stack that remembers more than its layers do is none either. Nothing is built."""
    model = random_model("1@1", architecture="retina")
    bundle = convert_model(model, tmp_path / "retina")
    error = 'stage "{}" can\'t be cut: it is not a stack of layers; compare whole stages, without cuts'
    with pytest.raises(ConfigError, match=error.format("1")):
        compare_cuts(bundle, "1")
    entry = _entry(zoo["nested"].bundle, "8")
    caches = (*entry.spec.caches, CacheSpec(name="shift", heads=1, width=24))
    with pytest.raises(ConfigError, match=error.format("8")):
        cuts_of(msgspec.structs.replace(entry.spec, caches=caches), zoo["nested"].bundle.file(entry.graph))


def test_a_stack_that_resets_is_cut_like_others(zoo: Zoo, tmp_path: Path) -> None:
    """A prefix keeps what its layers do: a coarse stage of the zoo, said to reset."""
    bundle = zoo["nested"].bundle
    entry = _entry(bundle, "8")
    kept = tuple(msgspec.structs.replace(cache, keeps=4) for cache in entry.spec.caches)
    spec = msgspec.structs.replace(entry.spec, caches=kept, resets=4)
    for cut in cuts_of(spec, bundle.file(entry.graph)):
        prefix, _ = write_prefix(bundle.file(entry.graph), tmp_path / "prefix.onnx", spec, cut)
        assert (prefix.caches, prefix.resets) == (kept[: 2 * cut.layers], 4)


def _entry(bundle: Bundle, stage: str) -> StageEntry:
    return next(entry for entry in bundle.manifest.stages if entry.spec.name == stage)


def _cuts(bundle: Bundle, stage: str) -> list[Cut]:
    entry = _entry(bundle, stage)
    return cuts_of(entry.spec, bundle.file(entry.graph))
