"""Which stages of a bundle run natively, and why others don't."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from ..bundle import Bundle
from ..contract.program import Program
from ..errors import BackendUnavailable, ConfigError
from .engines.native import NativeEngine
from .engines.native_library import NativeLibrary, native_library, pool_of
from .engines.native_programs import map_weights, read_program
from .engines.onnxruntime import OnnxRuntimeEngine

_log = logging.getLogger("foveal.native")
HostEngine = OnnxRuntimeEngine | NativeEngine
NATIVELY = "native"
"""What is said of a stage that runs natively begins so."""


def with_programs(
    bundle: Bundle, graphs: Sequence[OnnxRuntimeEngine], threads: int, native: bool | None
) -> tuple[HostEngine, ...]:
    """The engines of a bundle: of stages that have a program, and where foveal-native is installed, with it.

    Args:
        bundle: whose programs.
        graphs: its `cpu` engines.
        threads: of the pool that all programs of this process share which have as many.
        native: False: no programs; True: of all stages.

    Raises:
        ConfigError: `native` is True, and a stage has no program.
        BackendUnavailable: `native` is True, and foveal-native is not installed or of another version.
        BundleError: what should be a program is none.
        EngineMismatchError: one that can't be followed, is of another engine, or is refused by foveal-native.
    """
    if native is False:
        return tuple(graphs)
    bundle.check(*(name for graph in graphs for name in bundle.program(graph.spec.name) or ()))  # several at once
    programs = {graph.spec.name: read_program(bundle, graph.spec, graph.sidecar) for graph in graphs}
    missing = {name: reason for name in programs if (reason := no_program(bundle, name))}
    if native and missing:
        told = "; ".join(f"{name}: {reason}" for name, reason in missing.items())
        raise ConfigError(f"{bundle.path} does not run natively as a whole ({told}); leave native out, or build it again")
    if len(missing) == len(programs):
        return tuple(graphs)
    try:
        library = native_library()
    except BackendUnavailable as error:
        if native:
            raise
        _log.info("stages run on onnxruntime alone: %s", error)
        return tuple(graphs)
    return tuple(_engine(graph, programs[graph.spec.name], library, threads) for graph in graphs)


def stages_with_programs(bundle: Bundle) -> frozenset[str]:
    """The stages that `with_programs` gives programs, unless it raises: their graphs need not be open for that."""
    return frozenset(name for name, on in runs_on(bundle).items() if on.startswith(NATIVELY))


def _engine(graph: OnnxRuntimeEngine, found: tuple[Program, Path] | None, library: NativeLibrary, threads: int) -> HostEngine:
    if found is None:
        return graph
    program, weights = found
    return NativeEngine(graph, program, map_weights(weights, program.data_bytes), library, pool_of(library, threads))


def no_program(bundle: Bundle, stage: str) -> str:
    """Why a stage of a bundle has no program; "": it has one."""
    if bundle.program(stage) is not None:
        return ""
    return bundle.sidecar("cpu", stage).native or "built without programs"


def runs_on(bundle: Bundle) -> dict[str, str]:
    """What each stage of a bundle's `cpu` engines can run on here, for people: `"native (avx512)"`, or why not natively."""
    try:
        on, library = f"{NATIVELY} ({native_library().isa})", ""
    except BackendUnavailable as error:
        on, library = "", str(error)
    found = {}
    for entry in bundle.manifest.stages:
        reason = no_program(bundle, entry.spec.name) or library
        found[entry.spec.name] = f"onnxruntime: {reason}" if reason else on
    return found
