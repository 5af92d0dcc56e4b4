"""A parsed network becomes an engine."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from ...errors import BuildError
from ...files import keep
from ...progress import Progress, silent
from ...runtime.engines.tensorrt_library import Message
from ..graphs.gpu import LoweredStage
from .family import Family, compute_capabilities
from .layers import EngineLayers, LayersUnreadable, layers_listed
from .memory import peak_bytes, reset_peak
from .network import ParsedStage, first_error, parse
from .profiles import profiles_of, shapes
from .progress import BuildProgress, interruptible, monitor


class Built(NamedTuple):
    """What TensorRT made of a stage graph.

    Attributes:
        engine: the serialised engine, in memory of the library's.
        seconds: that building took, parsing aside.
        peak_memory_bytes: of this process meanwhile.
        inputs: names of the network's inputs.
        layers: what the builder lists of it.
        unreadable: why it lists nothing.
        complaints: warnings and errors that nothing explains.
    """

    engine: memoryview
    seconds: float
    peak_memory_bytes: int
    inputs: tuple[str, ...]
    layers: EngineLayers
    unreadable: str
    complaints: tuple[str, ...]


def build_engine(stage: LoweredStage, family: Family, on_progress: Progress = silent) -> Built:
    """Parse a lowered stage and build its engine.

    Args:
        stage: the graph.
        family: what it has in common with the other stages.
        on_progress: called with the phase that the build is in, and percents of 100; if it raises, the build ends.

    Raises:
        BuildError: the graph is not parsed or built, with TensorRT's words.
        KeyboardInterrupt: Ctrl-C was pressed.
    """
    library, progress = family.library, BuildProgress(on_progress)
    with library.listening() as messages, interruptible(progress):
        reset_peak()
        parsed = parse(stage, library, messages)
        watch = monitor(library, progress)
        config = _configure(parsed, stage, family, watch)
        began = perf_counter()
        engine = parsed.builder.build_serialized_network(parsed.network, config)
        seconds = perf_counter() - began
    if progress.error is not None:
        raise progress.error
    if engine is None:
        raise BuildError(_refusal(stage, family, messages))
    if family.options.timing_cache is not None:
        keep(family.options.timing_cache, bytes(config.get_timing_cache().serialize()), "kernel times")
    layers, unreadable = _listed(parsed, messages)
    return Built(
        engine=memoryview(engine),
        seconds=seconds,
        peak_memory_bytes=peak_bytes(),
        inputs=parsed.inputs,
        layers=layers,
        unreadable=unreadable,
        complaints=tuple(message.text for message in messages if message.is_complaint),
    )


def _configure(parsed: ParsedStage, stage: LoweredStage, family: Family, watch: Any) -> Any:
    library, options = family.library, family.options
    trt, config = library.module, parsed.builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # else nothing is said of types, tactics and nodes
    config.progress_monitor = watch
    config.clear_flag(trt.BuilderFlag.TF32)  # it is set by default, and would cut fp32 products to 10 bits of mantissa
    if options.strip_weights:
        config.set_flag(trt.BuilderFlag.STRIP_PLAN)
    known = compute_capabilities(library)
    if options.compute_capabilities:
        config.num_compute_capabilities = len(options.compute_capabilities)
    for index, capability in enumerate(options.compute_capabilities):
        config.set_compute_capability(known[capability], index)
    if options.timing_cache is not None:
        _set_timing_cache(config, options.timing_cache)
    for profile in profiles_of(stage.spec, family.limits, stage.sizes):
        added = parsed.builder.create_optimization_profile()
        for name, (smallest, usual, largest) in shapes(stage.contract, stage.sizes, profile).items():
            added.set_shape(name, smallest, usual, largest)
        config.add_optimization_profile(added)
    return config


def _set_timing_cache(config: Any, path: Path) -> None:
    cache = config.create_timing_cache(path.read_bytes() if path.is_file() else b"")
    if not config.set_timing_cache(cache, False):
        raise BuildError(f"{path} holds the kernel times of another device or version; give another file, or remove it")


def _refusal(stage: LoweredStage, family: Family, messages: list[Message]) -> str:
    text = f'{family.library} does not build stage "{stage.spec.name}": {first_error(messages)}'
    if family.options.strip_weights:
        return f"{text}; leaving weights out takes a GPU while building: build there, or without --strip-weights"
    return f"{text}; report it with the graph"


def _listed(parsed: ParsedStage, messages: list[Message]) -> tuple[EngineLayers, str]:
    try:
        return EngineLayers(network=parsed.kinds(), kernels=layers_listed(message.text for message in messages)), ""
    except LayersUnreadable as error:
        return EngineLayers(network=parsed.kinds(), kernels=()), str(error)
