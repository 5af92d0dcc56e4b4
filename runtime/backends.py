"""From a target to its engines: the one place that knows which library runs what."""

from __future__ import annotations

from collections.abc import Callable, Container
from functools import partial
from pathlib import Path
from typing import cast

from ..bundle import Bundle, StageEntry, chunks_name, data_name
from ..errors import ConfigError
from ..parallel import together
from ..sidecar import TensorRTLibrary
from .decoder_factory import Engines
from .engines.onnxruntime import OnnxRuntimeEngine
from .engines.onnxruntime_library import import_onnxruntime
from .engines.onnxruntime_providers import PROVIDERS
from .native_engines import stages_with_programs, with_programs
from .preflight.whole import require_whole


def open_engines(
    bundle: Bundle,
    target: str,
    threads: int = 1,
    provider: str | None = None,
    graphs: bool = True,
    overlap: bool | None = None,
    native: bool | None = None,
) -> Engines:
    """Load a bundle's engines for a target. Their files are hashed first, or beside, if that was not done.

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
        BundleError: a file of them is missing, truncated or altered.
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
    if target == "cpu":
        require_whole(bundle, target)  # whatever else they need shows when they are loaded
        later = () if native is False else stages_with_programs(bundle)
        return with_programs(bundle, cpu_engines(bundle, threads, later=later), threads, native)
    bundle.check(*(name for name in bundle.manifest.files if name.startswith(f"engines/{target}/")))
    from . import device_backends  # what a program of CPU engines does without

    if target == "cuda":
        require_whole(bundle, target)
        if overlap:
            raise ConfigError("overlap=True for target cuda: its engines run on one stream, one after the other; leave it out")
        return device_backends.on_onnxruntime(bundle, provider or "cuda")
    return device_backends.on_tensorrt(bundle, cast(TensorRTLibrary, target), graphs, overlap is not False)


def cpu_engines(
    bundle: Bundle, threads: int = 1, traces: Path | None = None, later: Container[str] = ()
) -> tuple[OnnxRuntimeEngine, ...]:
    """The graphs of the target `cpu`, on ONNX Runtime; raises as `open_engines`.

    `traces`: a directory for what each takes by operator (files `0*`, `1*`...). `later`: stages whose graphs are hashed here,
    as all are, and opened at the first call that needs them.

    Stages are opened together, and their weights are hashed meanwhile (graphs before they are parsed): no engine is given out
    before its weights are known to be whole. Of several things that are wrong, weights come first, then the first stage in
    dataflow order.
    """
    manifest = bundle.manifest
    names = [manifest.engines["cpu"][entry.spec.name] for entry in manifest.stages]
    for_many = [name for name in map(chunks_name, names) if name in manifest.files]  # opened at the first long call
    weights = [name for name in (*map(data_name, (*names, *for_many)), *for_many) if name in manifest.files]
    bundle.check(*names)
    import_onnxruntime()  # once, before as many threads need it

    def opened(index: int, entry: StageEntry) -> OnnxRuntimeEngine:
        trace = None if traces is None else traces / f"{index}"
        sidecar = bundle.sidecar("cpu", entry.spec.name)
        path, waits = bundle.path / names[index], entry.spec.name in later
        return OnnxRuntimeEngine(entry.spec, path, sidecar, threads, trace=trace, later=waits)

    calls: list[Callable[[], OnnxRuntimeEngine | None]] = [partial(bundle.check, name) for name in weights]
    calls += [partial(opened, index, entry) for index, entry in enumerate(manifest.stages)]
    costs = [manifest.files[name].bytes for name in weights] + [entry.weight_bytes for entry in manifest.stages]
    found = together(calls, costs)
    return tuple(engine for engine in found if engine is not None)
