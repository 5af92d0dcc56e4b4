"""Turing, for which TensorRT-RTX compiles no float32 matrix product: engines are built where they can be, else refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from combinations import deep
from onnx.external_data_helper import load_external_data_for_model
from precisions import CACHE, rms_distance
from specimens import full_forward
from tensorrt_builds import PreciseModels, rtx_family
from turing import TOLERANCES, check_turing

from foveal import Bundle, ConfigError, EngineOptions, build
from foveal.contract import size_of
from foveal.export import convert_model
from foveal.export.graphs.dialect import DIALECTS
from foveal.export.graphs.gpu import LoweredStage, lower
from foveal.export.tensorrt import compile as compiling
from foveal.export.tensorrt.turing import fit_turing
from foveal.precision import Plan

RTX, TURING = "tensorrt-rtx", EngineOptions(compute_capabilities=("7.5", "8.9"), max_prefill=16)
NAME = r"TensorRT-RTX [\d.]+ compiles matrix products for compute capability 7.5 only in fp16 and int8, "
REMEDY = "; build from an fp16 or int8 bundle, or leave 7.5 out$"


@pytest.mark.parametrize(("name", "precision"), [("resampled", "fp16"), ("resampled", "int8")])
def test_fp16_and_int8_bundles_are_built(name: str, precision: str, models: PreciseModels, tmp_path: Path) -> None:
    """Attention, resampling and the sampler included; int8 products are still the int8 kernels that were asked for."""
    source = models[name].build(Plan(default=precision, cache=CACHE))
    made = build(Path(shutil.copytree(source.path, tmp_path / "b")), target=RTX, options=TURING)
    for entry in made.manifest.stages:
        sidecar = made.sidecar(RTX, entry.spec.name)
        assert sidecar.precision_obtained == precision
        assert sidecar.build is not None
        assert sidecar.build.compute_capabilities == ("7.5", "8.9")


@pytest.fixture
def nothing_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail as soon as an engine is."""
    monkeypatch.setattr(compiling, "build_engine", lambda *_: pytest.fail("an engine was built"))


@pytest.mark.usefixtures("nothing_is_built")
@pytest.mark.parametrize(
    ("plan", "got"),
    [
        (Plan(default="fp32"), "got fp32"),
        (Plan(default="w8"), "got w8"),
        (Plan(default="w4"), "got w4"),
        (Plan(default="int8", stages={"1": "w4"}), "got w4"),
        (Plan(default="fp16", head=False), "got an output head in fp32"),
    ],
)
def test_what_can_not_be_built_is_refused_first(plan: Plan, got: str, models: PreciseModels, tmp_path: Path) -> None:
    """Whichever way engines are asked for, in one sentence; nothing is written."""
    model = models["vanilla"]
    with pytest.raises(ConfigError, match=f"^{NAME}{got}{REMEDY}"):
        build(model.full, tmp_path / "out", plan, RTX, options=TURING, calibration=model.calibration)
    with pytest.raises(ConfigError, match=f"^{NAME}{got}{REMEDY}"):
        convert_model(model.model, tmp_path / "out", RTX, plan, options=TURING, calibration=[model.text])
    with pytest.raises(ConfigError, match=f"^{NAME}{got}{REMEDY}"):
        build(model.build(plan), target=RTX, options=TURING)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("nothing_is_built")
def test_a_product_that_had_to_stay_fp32_is_named(
    models: PreciseModels, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What fp16 can't hold has no kernel there: its name and the reason are told before the first stage is compiled."""
    monkeypatch.setattr("foveal.export.precision.write_fp16.LIMIT", 0.0)
    model = models["vanilla"]
    kept = build(model.full, tmp_path / "fp16", "fp16", calibration=model.calibration)
    with pytest.raises(ConfigError, match=rf'{NAME}got fp32 of 1/.*its input reaches .* and \d+ more in stage "1"{REMEDY}'):
        build(kept, target=RTX, options=TURING)


def ran(stage: LoweredStage, graph: bytes, seed: int) -> list[np.ndarray]:
    """What ONNX Runtime makes of a lowered graph, of random rows and state."""
    model, rng = onnx.load_model_from_string(graph), np.random.default_rng(seed)
    load_external_data_for_model(model, str(stage.graph.parent))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    sizes, feeds = {"B": 1, "L": 3, "N": 1, **stage.sizes}, {}
    for tensor in stage.contract.inputs:
        shape = tuple(size_of(size, sizes) for size in tensor.shape)
        drawn = (
            rng.normal(0, 1, shape).astype(tensor.dtype) if tensor.dtype.startswith("float") else np.ones(shape, tensor.dtype)
        )
        feeds[tensor.name] = drawn
    return list(session.run(None, feeds))


@pytest.mark.parametrize(("precision", "tolerance"), [("fp16", 2e-3), ("int8", 1e-2)])
def test_the_meaning_stays(precision: str, tolerance: float, models: PreciseModels) -> None:
    """Without a product in fp32, every output of every stage is what it was, but for the rounding of int8 sums to fp16."""
    bundle: Bundle = models["resampled"].build(Plan(default=precision, cache=CACHE))
    family = rtx_family(bundle, dialect="classic")
    for entry in bundle.manifest.stages:
        stage = lower(bundle.file(entry.graph), entry.spec, family)
        changed = fit_turing(stage).model
        assert changed != stage.model or precision == "fp16"
        for before, after in zip(ran(stage, stage.model, 0), ran(stage, changed, 0), strict=True):
            assert np.abs(before.astype(np.float32) - after).max() <= tolerance * np.abs(before).max()


@pytest.mark.parametrize(
    ("name", "precision", "dialect"),
    [
        pytest.param(name, precision, dialect, marks=() if (name, dialect) == ("resampled", "modern") else deep)
        for name in ("vanilla", "resampled", "nested", "attention")
        for precision in TOLERANCES
        for dialect in DIALECTS
    ],
)
def test_logits_stay(name: str, precision: str, dialect: str, models: PreciseModels) -> None:
    """Of a whole session, a prefill and single tokens: those of the graphs as they were, and near PyTorch's of the fp32 model.

    `turing` among the kinds of `family_engines.py` says the same of every other family.
    """
    model = models[name]
    ids = model.ids(1, 40)
    got = check_turing(model.build(Plan(default=precision, cache=CACHE)), ids, precision, dialect)
    assert rms_distance(got, full_forward(model.model, ids)) < 0.25
