"""From a bundle on disk to tokens, for the targets that decode in a device's memory."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from engine_bundles import build_record, write
from fake_cuda import FakeGpu
from fake_tensorrt import DIALECTS, GENERATIONS, FakeTensorRT, Generation, plan
from resident_engines import LIMITS, family_of, lowered, sidecar_of
from specimens import Specimen, Zoo, full_forward, random_ids

from foveal.bundle import list_files, write_manifest
from foveal.contract import Limits
from foveal.export.graphs.gpu import LoweredStage
from foveal.files import sha256_of
from foveal.runtime import device_backends, load
from foveal.runtime.cuda import CudaDevice
from foveal.sidecar import EngineSidecar, TensorRTLibrary


def write_bundle(
    directory: Path, specimen: Specimen, target: str, engines: dict[str, bytes], sidecars: dict[str, EngineSidecar]
) -> Path:
    """A specimen's bundle, with engines of another target instead of its own."""
    shutil.copytree(specimen.bundle.path / "stages", directory / "stages")
    ending, names = "onnx" if target == "cuda" else "engine", {}
    for stage, engine in engines.items():
        names[stage] = f"engines/{target}/{stage}.{ending}"
        write(directory / names[stage], engine)
        graph = directory / f"stages/{stage}.onnx"
        written = msgspec.structs.replace(
            sidecars[stage],
            engine_sha256=sha256_of(directory / names[stage]),
            graph_sha256=sha256_of(graph),
            graph_data_sha256=sha256_of(graph.with_name(f"{stage}.onnx.data")),
        )
        write((directory / names[stage]).with_suffix(".json"), msgspec.json.encode(written))
    manifest = specimen.bundle.manifest
    write_manifest(directory, msgspec.structs.replace(manifest, engines={target: names}, files=list_files(directory)))
    return directory


def whole(stage: LoweredStage) -> bytes:
    """A lowered graph with its weights."""
    model = onnx.load_model_from_string(stage.model)
    onnx.load_external_data_for_model(model, str(stage.graph.parent))
    return model.SerializeToString()


@pytest.mark.parametrize("dialect", ["modern", "classic"])
@pytest.mark.parametrize("limits", [LIMITS, Limits(batch=1, capacity=96, prefill=96)])
def test_cuda_engines_run_on_the_cpu_where_there_is_no_gpu(dialect: str, limits: Limits, zoo: Zoo, tmp_path: Path) -> None:
    """Through the very code that binds them to a GPU's memory."""
    stages = lowered(zoo["nested"], dialect, limits)
    bundle = write_bundle(
        tmp_path / "bundle",
        zoo["nested"],
        "cuda",
        {stage.spec.name: whole(stage) for stage in stages},
        {stage.spec.name: sidecar_of(stage.spec, "cuda", dialect, limits) for stage in stages},
    )
    session, ids = load(bundle, target="cuda", provider="cpu").session(), random_ids(1, 40)
    logits = np.concatenate([session.advance(ids[:, :23]), *[session.advance(ids[:, [i]]) for i in range(23, 40)]], 1)
    np.testing.assert_allclose(logits, full_forward(zoo["nested"].model, ids), atol=1e-4)
    assert session.copied_bytes == 0


@pytest.mark.parametrize("generation", GENERATIONS)
def test_tensorrt_engines_are_read_checked_and_run(
    generation: Generation, zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The preflight comes first; then library and GPU, here fakes of both."""
    gpu = FakeGpu()
    library = FakeTensorRT(generation, gpu)
    dialect, target = DIALECTS[generation], library.library.target
    stages, family = lowered(zoo["nested"], dialect), family_of(zoo["nested"], dialect)
    bundle = write_bundle(
        tmp_path / "bundle",
        zoo["nested"],
        target,
        {stage.spec.name: plan(stage, family) for stage in stages},
        {stage.spec.name: sidecar_of(stage.spec, target, dialect, LIMITS, build=build_record(target)) for stage in stages},
    )
    checked: list[TensorRTLibrary] = []
    monkeypatch.setattr(device_backends, "require_match", lambda bundle, target: checked.append(target))
    monkeypatch.setattr(device_backends, "library_of", lambda target: library.library)
    monkeypatch.setattr(device_backends, "CudaDevice", lambda: CudaDevice(cudart=gpu.cudart))
    model, ids = load(bundle, target=target), random_ids(2, 40)
    session = model.session(batch=2)
    logits = np.concatenate([session.advance(ids[:, :23]), *[session.advance(ids[:, [i]]) for i in range(23, 40)]], 1)
    np.testing.assert_allclose(logits, full_forward(zoo["nested"].model, ids), atol=1e-4)
    assert checked == [target]
    assert [engine.stage for engine in library.engines] == ["1.pre", "2.pre", "8", "2.post", "1.post"]
    del session, model
    assert gpu.leaks() == []
