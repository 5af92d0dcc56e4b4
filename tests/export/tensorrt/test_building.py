"""A stage becomes an engine: how far that is, what is said of it, how it ends early, and why it may not begin."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path

import numpy as np
import onnx
import pytest
from specimens import Zoo
from tensorrt_builds import looked_at, rtx_family

from foveal.contract import Contract, StageSpec, TensorSpec
from foveal.errors import BuildError
from foveal.export.graphs.gpu import LoweredStage, lower
from foveal.export.tensorrt import forecast
from foveal.export.tensorrt.build import build_engine
from foveal.export.tensorrt.forecast import forecast_bytes, warn_if_short
from foveal.export.tensorrt.progress import BuildProgress
from foveal.runtime.engines.tensorrt_library import EXPLAINED, Message, library_of


def saved(path: Path, text: str, **weights: np.ndarray) -> LoweredStage:
    """A graph, from ONNX's text form, with its weights, as a stage that is ready to be parsed."""
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 24]> {text}')
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in weights.items())
    spec = StageSpec(name="g", stride=1, inputs=(), output="hidden", width=1, layers=0, parameters=0)
    contract = Contract((TensorSpec("x", "float32", ("B", 8), ""),), ())
    return LoweredStage(spec, path, model.SerializeToString(), contract, {})


def test_all_sizes_are_fixed_that_can_be(zoo: Zoo) -> None:
    """Lengths of caches and logs are numbers in the graph; batch, rows and rows wanted are left to the profiles."""
    left = set()
    for stage in looked_at(zoo["nested"].bundle):
        graph = onnx.load_model_from_string(stage.lowered.model).graph
        for value in (*graph.input, *graph.output):
            left |= {dimension.dim_param.rpartition("*")[2] for dimension in value.type.tensor_type.shape.dim}
    assert left == {"", "B", "L", "N"}


def test_weights_are_read_from_where_they_are(zoo: Zoo) -> None:
    """A lowered graph is small, whatever the model: ONNX files end at 2 GB."""
    bundle = zoo["vanilla"].bundle
    (entry,) = bundle.manifest.stages
    lowered = lower(bundle.file(entry.graph), entry.spec, rtx_family(bundle))
    inside = [tensor for tensor in onnx.load_model_from_string(lowered.model).graph.initializer if not tensor.external_data]
    assert max(tensor.ByteSize() for tensor in inside) < 1000


def test_lowering_is_the_same_every_time(zoo: Zoo) -> None:
    """Or no engine would be found again."""
    bundle = zoo["linear"].bundle
    for entry in bundle.manifest.stages:
        first, second = (lower(bundle.file(entry.graph), entry.spec, rtx_family(bundle)) for _ in range(2))
        assert first == second


def test_a_graph_that_is_not_parsed(tmp_path: Path, zoo: Zoo) -> None:
    """The parser's words are passed on: here, that it takes no zero points."""
    text = "g (float[B,8] x) => (float[B,8] y) { w = DequantizeLinear <axis = 0> (q, s, z) y = MatMul (x, w) }"
    weights = {"q": np.ones((8, 8), np.int8), "s": np.ones(8, np.float32), "z": np.full(8, 3, np.int8)}
    with pytest.raises(
        BuildError, match=r'^TensorRT-RTX [\d.]+ does not parse stage "g": .*[Zz]ero.*; report it with the graph$'
    ):
        build_engine(saved(tmp_path / "g.onnx", text, **weights), rtx_family(zoo["vanilla"].bundle))


def test_a_graph_that_is_not_built(tmp_path: Path, zoo: Zoo) -> None:
    """The builder's first error is passed on: here, that it looks nothing up in int8."""
    text = "g (int64[B,8] x) => (float[B,8,8] y) { q = Gather (table, x) y = Cast <to = 1> (q) }"
    with pytest.raises(BuildError, match=r'does not build stage "g": .*Quantized constant \(table\) is only allowed before'):
        build_engine(saved(tmp_path / "g.onnx", text, table=np.ones((4, 8), np.int8)), rtx_family(zoo["vanilla"].bundle))


def test_leaving_weights_out_takes_a_gpu(zoo: Zoo) -> None:
    """TensorRT-RTX compiles something for the GPU it has then; its refusal is passed on, with what to do."""
    bundle = zoo["vanilla"].bundle
    (entry,) = bundle.manifest.stages
    family = rtx_family(bundle, strip_weights=True)
    with pytest.raises(
        BuildError, match=r'does not build stage "1": .*CUDA_SUCCESS.*; leaving weights out takes a GPU while bu'
    ):
        build_engine(lower(bundle.file(entry.graph), entry.spec, family), family)


@pytest.mark.parametrize("capabilities", [("8.9",), ("8.6", "12.0")])
def test_engines_for_some_gpus(capabilities: tuple[str, ...], zoo: Zoo) -> None:
    """The library is told which; its header says so too (undocumented, so nothing relies on it)."""
    bundle = zoo["vanilla"].bundle
    (entry,) = bundle.manifest.stages
    family = rtx_family(bundle, compute_capabilities=capabilities)
    built = build_engine(lower(bundle.file(entry.graph), entry.spec, family), family)
    bits = {"8.6": 4, "8.9": 8, "12.0": 16}
    assert int.from_bytes(built.engine[32:36], "little") == sum(bits[capability] for capability in capabilities)


def test_what_no_gpu_of_a_list_can_run(zoo: Zoo) -> None:
    """Turing has no fp32 products; the library says so."""
    bundle = zoo["vanilla"].bundle
    (entry,) = bundle.manifest.stages
    family = rtx_family(bundle, compute_capabilities=("7.5",))
    with pytest.raises(BuildError, match=r'does not build stage "1": .*Turing \(SM75\): FP32 GEMM is not supported'):
        build_engine(lower(bundle.file(entry.graph), entry.spec, family), family)


def test_how_far_a_build_is(zoo: Zoo) -> None:
    """In percents that begin at none and seldom go back, with the phase in words."""
    bundle, seen = zoo["vanilla"].bundle, []
    (entry,) = bundle.manifest.stages
    family = rtx_family(bundle)
    build_engine(lower(bundle.file(entry.graph), entry.spec, family), family, lambda *step: seen.append(step))
    percents = [percent for _, percent, _ in seen]
    assert {steps for _, _, steps in seen} == {100}
    assert percents[0] == 0
    assert max(percents) > 80
    assert 10 < len(seen) <= 110
    assert {"cloning network graph", "computing profile costs"} <= {phase for phase, _, _ in seen}


def test_phases_lie_in_each_other() -> None:
    """A share of the inner one is that share of one step of the outer one."""
    seen: list[tuple[str, int, int]] = []
    progress = BuildProgress(lambda *step: seen.append(step))
    progress.start("Building", 4)
    progress.step("Building", 0)
    progress.start("Optimizing", 10)
    assert progress.step("Optimizing", 4)
    progress.finish("Optimizing")
    progress.step("Building", 3)
    assert seen == [("building", 25, 100), ("optimizing", 37, 100), ("building", 100, 100)]


@pytest.mark.parametrize("after", [0, 40])
def test_what_a_callback_raises_ends_the_build(after: int, zoo: Zoo) -> None:
    """As itself: a program that shows progress in a window can cancel so."""
    bundle = zoo["vanilla"].bundle
    (entry,) = bundle.manifest.stages
    family = rtx_family(bundle)

    class Cancelled(Exception):
        """The caller's own."""

    def cancel(_phase: str, percent: int, _steps: int) -> None:
        if percent >= after:
            raise Cancelled

    with pytest.raises(Cancelled):
        build_engine(lower(bundle.file(entry.graph), entry.spec, family), family, cancel)


def test_ctrl_c_ends_the_build(zoo: Zoo) -> None:
    """At its next step, as KeyboardInterrupt; what Ctrl-C does otherwise is as it was."""
    bundle, seen, before = zoo["vanilla"].bundle, [], signal.getsignal(signal.SIGINT)
    (entry,) = bundle.manifest.stages
    family = rtx_family(bundle)

    def press(_phase: str, percent: int, _steps: int) -> None:
        seen.append(percent)
        if percent >= 30:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        build_engine(lower(bundle.file(entry.graph), entry.spec, family), family, press)
    assert seen[-1] >= 30
    assert len([percent for percent in seen if percent >= 30]) == 1
    assert signal.getsignal(signal.SIGINT) is before


def test_what_is_said_goes_to_logging(zoo: Zoo, caplog: pytest.LogCaptureFixture) -> None:
    """Explained complaints at DEBUG, with why; nothing above it, or every build would be noisy."""
    bundle = zoo["nested"].bundle
    entry, family = bundle.manifest.stages[0], rtx_family(bundle)
    with caplog.at_level(logging.DEBUG, "foveal.tensorrt"):
        build_engine(lower(bundle.file(entry.graph), entry.spec, family), family)
    ours = [record for record in caplog.records if record.name == "foveal.tensorrt"]
    assert len(ours) > 500
    assert {record.levelname for record in ours} == {"DEBUG"}
    reason = next(iter(EXPLAINED.values()))
    assert any(f"has Int64 binding. (harmless: {reason})" in record.getMessage() for record in ours)


def test_errors_are_logged_as_such(tmp_path: Path, zoo: Zoo, caplog: pytest.LogCaptureFixture) -> None:
    """With what led to them."""
    text = "g (int64[B,8] x) => (float[B,8,8] y) { q = Gather (table, x) y = Cast <to = 1> (q) }"
    with pytest.raises(BuildError):
        build_engine(saved(tmp_path / "g.onnx", text, table=np.ones((4, 8), np.int8)), rtx_family(zoo["vanilla"].bundle))
    assert any("Quantized constant" in record.getMessage() for record in caplog.records if record.levelname == "ERROR")


@pytest.mark.parametrize(
    ("severity", "text", "complains"),
    [
        ("WARNING", "Unused Input: position", True),
        ("WARNING", "ModelImporter.cpp:1071: Make sure input position has Int64 binding.", False),
        ("ERROR", "out of memory", True),
        ("INFO", "Unused Input: position", False),
        ("INTERNAL_ERROR", "assertion failed", True),
    ],
)
def test_what_counts_as_a_complaint(severity: str, text: str, complains: bool) -> None:
    """Any warning or error that is not explained."""
    assert Message(severity, text).is_complaint is complains


def test_listeners_hear_what_is_said_while_they_listen(zoo: Zoo) -> None:
    """Each of them, and no longer."""
    library = library_of("tensorrt-rtx")
    severity = library.module.ILogger.Severity.WARNING
    with library.listening() as outer, library.listening() as inner:
        library.logger.log(severity, "Make sure input x has Int64 binding")
    library.logger.log(severity, "Make sure input y has Int64 binding")
    assert outer == inner == [Message("WARNING", "Make sure input x has Int64 binding")]


def test_too_little_memory_is_said_before(zoo: Zoo, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A warning with both figures, and what helps; the build goes on."""
    bundle = zoo["vanilla"].bundle
    (entry,) = bundle.manifest.stages
    lowered = lower(bundle.file(entry.graph), entry.spec, rtx_family(bundle))
    warn_if_short(lowered)
    assert caplog.messages == []
    monkeypatch.setattr(forecast, "available_bytes", lambda: 100_000_000)
    warn_if_short(lowered)
    assert caplog.messages[0].startswith("building stage 1 is forecast to take 0.2 GB of memory, and 0.1 GB are available; ")
    monkeypatch.setattr(forecast, "available_bytes", lambda: None)  # not known
    warn_if_short(lowered)
    assert len(caplog.messages) == 1


def test_the_forecast_grows_with_the_weights() -> None:
    """Figures in forecast.py."""
    assert forecast_bytes(607 << 20) == (190 + 3 * 607) << 20
    assert forecast_bytes(0) < forecast_bytes(1000)


def test_the_peak_is_of_the_build(zoo: Zoo) -> None:
    """Of this process, so no less than the engine and no more than all memory."""
    for stage in looked_at(zoo["vanilla"].bundle):
        assert stage.built.engine.nbytes < stage.built.peak_memory_bytes < 64 << 30
