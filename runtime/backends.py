"""From a target to its engines: the one place that knows which library runs what."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from ..bundle import SAMPLER, Bundle, StageEntry
from ..contract import StageSpec, sampler_contract
from ..errors import ConfigError
from ..sidecar import TensorRTLibrary
from .cuda import CudaDevice
from .decoder_factory import Engines
from .device import HostDevice
from .engines.onnxruntime import OnnxRuntimeEngine
from .engines.onnxruntime_library import memory_of
from .engines.onnxruntime_providers import PROVIDERS, open_resident_session
from .engines.onnxruntime_resident import ResidentOrtEngine, ResidentOrtProgram
from .engines.tensorrt import TensorRTEngine, TensorRTProgram, TensorRTRuntime
from .engines.tensorrt_library import library_of
from .native_engines import with_programs
from .preflight import require_match, require_whole
from .resident import ResidentEngines


def open_engines(
    bundle: Bundle,
    target: str,
    threads: int = 1,
    provider: str | None = None,
    graphs: bool = True,
    overlap: bool | None = None,
    native: bool | None = None,
) -> Engines:
    """Load a bundle's engines for a target.

    Args:
        bundle: it has engines for the target.
        target: what they were built for.
        threads: of `cpu` engines.
        provider: of `cuda` engines, one of `PROVIDERS`; None: `"cuda"`.
        graphs: whether TensorRT's decode steps are recorded as CUDA graphs.
        overlap: whether stages that TensorRT's decode steps do not wait for run beside the others, on a second stream; None:
            they do. Of `cpu` engines the session decides that.
        native: as `with_programs`; of `cpu` engines only.

    Raises:
        ConfigError: a provider that is unknown, or one for another target than `cuda`; an overlap of `cuda` engines; `native`
            of other engines than `cpu`'s, or of stages that have no program.
        BackendUnavailable: a library, driver or GPU that they need is not there.
        EngineMismatchError: they were made for something else.
    """
    if provider is not None and (target != "cuda" or provider not in PROVIDERS):
        raise ConfigError(
            f'provider "{provider}" for target {target}: only target cuda has a choice, of {", ".join(PROVIDERS)}; leave it out'
        )
    if native is not None and target != "cpu":
        raise ConfigError(f"native={native} for target {target}: only cpu engines have native steps; leave it out")
    if target in ("cpu", "cuda"):
        require_whole(bundle, target)  # whatever else they need shows when they are loaded
    if target == "cpu":
        return with_programs(bundle, cpu_engines(bundle, threads), threads, native)
    if target == "cuda":
        if overlap:
            raise ConfigError("overlap=True for target cuda: its engines run on one stream, one after the other; leave it out")
        return _on_onnxruntime(bundle, provider or "cuda")
    return _on_tensorrt(bundle, cast(TensorRTLibrary, target), graphs, overlap is not False)


def cpu_engines(bundle: Bundle, threads: int = 1, traces: Path | None = None) -> tuple[OnnxRuntimeEngine, ...]:
    """The graphs of the target `cpu`, on ONNX Runtime; raises as `open_engines`.

    `traces`: a directory for what each takes by operator (files `0*`, `1*`...).
    """

    def engine(index: int, entry: StageEntry) -> OnnxRuntimeEngine:
        name, trace = entry.spec.name, None if traces is None else traces / f"{index}"
        return OnnxRuntimeEngine(entry.spec, bundle.engine("cpu", name), bundle.sidecar("cpu", name), threads, trace=trace)

    return tuple(engine(index, entry) for index, entry in enumerate(bundle.manifest.stages))


def _on_onnxruntime(bundle: Bundle, provider: str) -> ResidentEngines:
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


def _on_tensorrt(bundle: Bundle, target: TensorRTLibrary, graphs: bool, overlap: bool) -> ResidentEngines:
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
