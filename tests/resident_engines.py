"""Resident engines of the specimens, on every device and library that a machine without a GPU can stand in for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir as ir
import onnxruntime as ort
from fake_cuda import FakeGpu
from fake_tensorrt import DIALECTS, FakeTensorRT, Generation, plan
from specimens import Specimen

from foveal.contract import Limits, StageSpec, leads_of, sampler_contract
from foveal.export.graphs.change_dialect import change_dialect
from foveal.export.graphs.dialect import dialect_named
from foveal.export.graphs.gpu import LoweredStage, lower, lower_sampler
from foveal.export.graphs.resident import make_resident
from foveal.export.tensorrt.family import Family
from foveal.export.tensorrt.options import EngineOptions
from foveal.runtime.cuda import CudaDevice
from foveal.runtime.device import HostDevice
from foveal.runtime.engines.onnxruntime_library import memory_of, session_options
from foveal.runtime.engines.onnxruntime_resident import ResidentOrtEngine, ResidentOrtProgram
from foveal.runtime.engines.tensorrt import TensorRTEngine, TensorRTProgram, TensorRTRuntime
from foveal.runtime.resident import ResidentEngines
from foveal.runtime.session import Session
from foveal.sidecar import EngineSidecar

LIMITS = Limits(batch=2, capacity=96, prefill=5)
"""A prefill so short that most chunks are run in several calls."""

_lowered: dict[tuple[object, ...], list[LoweredStage]] = {}
_sessions: dict[tuple[object, ...], ort.InferenceSession] = {}


def specs_of(specimen: Specimen) -> tuple[StageSpec, ...]:
    """The stages of a specimen, in dataflow order."""
    return tuple(entry.spec for entry in specimen.bundle.manifest.stages)


def family_of(specimen: Specimen, dialect: str, limits: Limits = LIMITS) -> Family:
    """What the engines of a specimen have in common; the library builds nothing here, so there is none."""
    library: Any = None
    model = specimen.bundle.manifest.model
    return Family(model, specs_of(specimen), limits, dialect_named(dialect), library, EngineOptions())


def lowered(specimen: Specimen, dialect: str, limits: Limits = LIMITS) -> list[LoweredStage]:
    """Every stage as TensorRT would parse it."""
    key = (specimen.bundle.path, dialect, limits)
    if key not in _lowered:
        family = family_of(specimen, dialect, limits)
        stages = specimen.bundle.manifest.stages
        _lowered[key] = [lower(specimen.bundle.file(entry.graph), entry.spec, family) for entry in stages]
    return _lowered[key]


def lowered_sampler(specimen: Specimen, dialect: str, limits: Limits = LIMITS) -> LoweredStage:
    """What draws tokens on a device."""
    return lower_sampler(specimen.bundle.path / "sampler.onnx", family_of(specimen, dialect, limits))


def sidecar_of(spec: StageSpec, target: str, dialect: str, limits: Limits | None, **changes: Any) -> EngineSidecar:
    """What lies beside a stage's resident engine."""
    usual: dict[str, Any] = {
        "target": target,
        "stage": spec.name,
        "builder": "foveal 0.1.0",
        "precision_asked": "fp32",
        "precision_obtained": "fp32",
        "graph_sha256": "0" * 64,
        "engine_sha256": f"{spec.name:0<64}",
        "cache_widths": tuple(cache.width for cache in spec.caches),
        "dialect": dialect,
        "limits": limits,
        "own_positions": True,
    }
    return EngineSidecar(**{**usual, **changes})


class TakesTurns(ResidentOrtEngine):
    """An engine that writes its state to other memory than it reads it from, as those of TensorRT 10.3."""

    in_place = False


class QueuedSession:
    """An `InferenceSession` as on a GPU: its runs are queued on the stream of a fake GPU, or recorded there."""

    def __init__(self, session: ort.InferenceSession, gpu: FakeGpu, stream: int) -> None:
        self.session, self.gpu, self.stream = session, gpu, stream

    def io_binding(self) -> Any:
        """The real one: the GPU's memory is the host's."""
        return self.session.io_binding()

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        """Queue a run on what is bound."""
        self.gpu.enqueue(self.stream, lambda: self.session.run_with_iobinding(binding, options))


def ort_engines(
    specimen: Specimen, dialect: str, limits: Limits | None = LIMITS, in_place: bool = True, gpu: FakeGpu | None = None
) -> ResidentEngines:
    """On ONNX Runtime; on the host, or as on a fake GPU. Without limits, caches are as long as a session asks for."""
    model, cpu = specimen.bundle.manifest.model, memory_of("cpu")
    device = HostDevice() if gpu is None else CudaDevice(cudart=gpu.cudart)
    kind = ResidentOrtEngine if in_place else TakesTurns

    def engine(index: int, spec: StageSpec) -> ResidentOrtEngine:
        session: Any = _session(specimen, index, dialect, limits)
        if isinstance(device, CudaDevice) and gpu is not None:
            session = QueuedSession(session, gpu, device.stream)
        return kind(spec, session, sidecar_of(spec, "cuda", dialect, limits), cpu)

    engines = [engine(index, spec) for index, spec in enumerate(specs_of(specimen))]
    sampler: Any = ort.InferenceSession(lowered_sampler(specimen, dialect).model, providers=["CPUExecutionProvider"])
    if isinstance(device, CudaDevice) and gpu is not None:
        sampler = QueuedSession(sampler, gpu, device.stream)
    program = ResidentOrtProgram("sampler", sampler, sampler_contract(len(engines), model.vocab_size), cpu)
    return ResidentEngines(engines, device, program)


def tensorrt_engines(
    specimen: Specimen,
    generation: Generation,
    gpu: FakeGpu,
    limits: Limits = LIMITS,
    dialect: str | None = None,
    library: FakeTensorRT | None = None,
) -> ResidentEngines:
    """On a fake TensorRT, in the dialect that it takes best."""
    device, written = CudaDevice(cudart=gpu.cudart), dialect or DIALECTS[generation]
    found = (library or FakeTensorRT(generation, gpu)).library
    shared, family, specs = TensorRTRuntime(found, device), family_of(specimen, written, limits), specs_of(specimen)
    engines = [
        TensorRTEngine(
            stage.spec,
            plan(stage, family, activation_bytes=1000 * (index + 1)),
            sidecar_of(stage.spec, found.target, written, limits),
            specs,
            shared,
        )
        for index, stage in enumerate(lowered(specimen, written, limits))
    ]
    sampler = lowered_sampler(specimen, written, limits)
    program = TensorRTProgram(
        "sampler",
        plan(sampler, family),
        sidecar_of(sampler.spec, found.target, written, limits),
        sampler.contract,
        sampler.sizes,
        shared,
    )
    return ResidentEngines(engines, device, program)


def session_of(engines: ResidentEngines, specimen: Specimen, batch: int = 1) -> Session:
    """A session on them."""
    return Session(engines, specimen.bundle.manifest.model, batch)


def _session(specimen: Specimen, index: int, dialect: str, limits: Limits | None) -> ort.InferenceSession:
    key = (specimen.bundle.path, index, dialect, limits)
    if key not in _sessions:
        options = session_options()
        weights = str(specimen.bundle.path / "stages")
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", weights)
        graph = _unlimited(specimen, index, dialect) if limits is None else lowered(specimen, dialect, limits)[index].model
        _sessions[key] = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return _sessions[key]


def _unlimited(specimen: Specimen, index: int, dialect: str) -> bytes:
    """A stage's resident graph whose caches and logs may be of any length."""
    entry, specs = specimen.bundle.manifest.stages[index], specs_of(specimen)
    model = ir.load(specimen.bundle.file(entry.graph))
    change_dialect(model, dialect_named(dialect))
    make_resident(model, entry.spec, leads_of(specs), dialect_named(dialect))
    return ir.to_proto(model).SerializeToString()


Opening = Callable[[Specimen, FakeGpu], ResidentEngines]


def on_tensorrt(generation: Generation, dialect: str | None = None) -> Opening:
    """Engines of a generation of TensorRT."""
    return lambda specimen, gpu: tensorrt_engines(specimen, generation, gpu, dialect=dialect)


LIBRARIES: dict[str, Opening] = {
    "onnxruntime": lambda specimen, gpu: ort_engines(specimen, "modern"),
    "onnxruntime, classic": lambda specimen, gpu: ort_engines(specimen, "classic"),
    "onnxruntime, of any length": lambda specimen, gpu: ort_engines(specimen, "modern", None),
    "onnxruntime, taking turns": lambda specimen, gpu: ort_engines(specimen, "classic", in_place=False),
    "onnxruntime, on a GPU": lambda specimen, gpu: ort_engines(specimen, "modern", gpu=gpu),
    "tensorrt-rtx": on_tensorrt("tensorrt-rtx"),
    "tensorrt": on_tensorrt("tensorrt"),
    "tensorrt, classic": on_tensorrt("tensorrt", "classic"),
    "tensorrt 10.3": on_tensorrt("tensorrt 10.3"),
}
"""Every way to run resident engines that needs no GPU."""
