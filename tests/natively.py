"""A bundle's stages run natively, by the library as the tree has it or by numpy."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from native_library import built_library
from native_reference import ReferenceLibrary

from foveal.bundle import Bundle
from foveal.runtime.backends import cpu_engines
from foveal.runtime.engines.native import NativeEngine
from foveal.runtime.engines.native_library import NativeLibrary, Pool
from foveal.runtime.engines.native_programs import map_weights, read_program
from foveal.runtime.native_engines import HostEngine

Library = NativeLibrary | ReferenceLibrary
LIBRARIES = ("numpy", "library")


def library_named(name: str) -> Library:
    """One of `LIBRARIES`; skips where the tree's can't be built."""
    return ReferenceLibrary() if name == "numpy" else NativeLibrary(built_library())


def native_engines(bundle: Bundle, library: Library, threads: int = 1) -> tuple[HostEngine, ...]:
    """All engines of a bundle, those whose stage has a program with it."""
    pool = Pool(library, threads)  # type: ignore[arg-type]
    found: list[HostEngine] = []
    for graph in cpu_engines(bundle, threads):
        read = read_program(bundle, graph.spec, graph.sidecar)
        if read is None:
            found.append(graph)
            continue
        program, weights = read
        found.append(NativeEngine(graph, program, map_weights(weights, program.data_bytes), library, pool))  # type: ignore[arg-type]
    return tuple(found)


def require_native(engines: Sequence[HostEngine]) -> None:
    """Fail unless all stages have a program."""
    graphs = [engine.spec.name for engine in engines if not isinstance(engine, NativeEngine)]
    if graphs:
        pytest.fail(f"stages without a program: {', '.join(graphs)}")
