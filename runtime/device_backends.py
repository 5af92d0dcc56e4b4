"""Engines in a device's memory, from a bundle: ONNX Runtime on a GPU, or TensorRT. Imported for such targets alone."""

from __future__ import annotations

from typing import Any

from ..bundle import SAMPLER, Bundle
from ..contract import StageSpec, sampler_contract
from ..sidecar import TensorRTLibrary
from .cuda import CudaDevice
from .device import HostDevice
from .engines.onnxruntime_library import memory_of
from .engines.onnxruntime_providers import open_resident_session
from .engines.onnxruntime_resident import ResidentOrtEngine, ResidentOrtProgram
from .engines.tensorrt import TensorRTEngine, TensorRTProgram, TensorRTRuntime
from .engines.tensorrt_library import library_of
from .preflight import require_match
from .resident import ResidentEngines


def on_onnxruntime(bundle: Bundle, provider: str) -> ResidentEngines:
    """Of target `cuda`; raises as `backends.open_engines`."""
    model = bundle.manifest.model
    gpu = None if provider == "cpu" else CudaDevice()
    memory = memory_of("cpu" if gpu is None else "cuda")

    def session(name: str) -> Any:
        path, stream = bundle.engine("cuda", name), 0 if gpu is None else gpu.stream
        return open_resident_session(path, name, bundle.sidecar("cuda", name).builder, provider, stream)

    def engine(spec: StageSpec) -> ResidentOrtEngine:
        return ResidentOrtEngine(spec, session(spec.name), bundle.sidecar("cuda", spec.name), memory)

    engines = [engine(entry.spec) for entry in bundle.manifest.stages]
    sampler = None
    if SAMPLER in bundle.manifest.engines["cuda"]:
        contract = sampler_contract(len(engines), model.vocab_size)
        sampler = ResidentOrtProgram(SAMPLER, session(SAMPLER), contract, memory)
    # Not recorded: whether a run of ONNX Runtime on our stream can be, no GPU has shown.
    return ResidentEngines(engines, gpu or HostDevice(), sampler, records=False)


def on_tensorrt(bundle: Bundle, target: TensorRTLibrary, graphs: bool, overlap: bool) -> ResidentEngines:
    """Of a target of TensorRT; raises as `backends.open_engines`."""
    require_match(bundle, target)
    model, specs = bundle.manifest.model, [entry.spec for entry in bundle.manifest.stages]
    device = CudaDevice()
    shared = TensorRTRuntime(library_of(target), device)

    def engine(spec: StageSpec) -> TensorRTEngine:
        serialized, sidecar = bundle.engine(target, spec.name).read_bytes(), bundle.sidecar(target, spec.name)
        return TensorRTEngine(spec, serialized, sidecar, specs, shared)

    engines = [engine(spec) for spec in specs]
    sampler = None
    if SAMPLER in bundle.manifest.engines[target]:
        serialized, sidecar = bundle.engine(target, SAMPLER).read_bytes(), bundle.sidecar(target, SAMPLER)
        contract = sampler_contract(len(specs), model.vocab_size)
        sampler = TensorRTProgram(SAMPLER, serialized, sidecar, contract, {}, shared)
    return ResidentEngines(engines, device, sampler, records=graphs, overlap=overlap)
