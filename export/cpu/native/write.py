"""A stage's program and its weights, beside the engine graph that they were made from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ....calibration.graph_files import load_graph
from ....contract import StageSpec
from ....contract.program import PROGRAM_VERSION, Program, ProgramCache, program_names
from ....contract.program_checks import problem_of_program
from ....errors import BuildError
from ....files import sha256_of, write_atomically
from .draft import share_buffers
from .fuse import fuse
from .lower import lower_graph
from .lowering import Lowering
from .packing import DataFile
from .tensors import Unsupported


def write_program(engine: Path, stage: StageSpec, widths: Sequence[int], cache_dtype: str) -> str:
    """Write what the stage's CPU graph computes as a program; "", or why there is none.

    Args:
        engine: the graph.
        stage: what it declares.
        widths: of its caches in the engine.
        cache_dtype: theirs.

    Raises:
        BuildError: the program does not keep to its own rules.
    """
    data = DataFile()
    try:
        program = program_of(engine, stage, widths, cache_dtype, data)
    except Unsupported as error:
        return str(error)
    if problem := problem_of_program(program, stage, widths, cache_dtype):
        raise BuildError(f'the program of stage "{stage.name}" is wrong: {problem}; report it')
    file, weights = map(Path, program_names(str(engine)))
    write_atomically(weights, b"".join(data.parts))
    write_atomically(file, msgspec.json.encode(program) + b"\n")
    return ""


def program_of(engine: Path, stage: StageSpec, widths: Sequence[int], cache_dtype: str, data: DataFile) -> Program:
    """The program; its weights go to `data`.

    Raises:
        Unsupported: something in the graph is no step.
    """
    caches = [
        ProgramCache(name=cache.name, dtype="int8" if cache_dtype == "int8" else "float32", heads=cache.heads, width=width)
        for cache, width in zip(stage.caches, widths, strict=True)
    ]
    lowering = Lowering(stage, caches, data)
    lower_graph(load_graph(engine), lowering)
    fuse(lowering.draft)
    buffers, steps, place = share_buffers(lowering.draft)
    inputs = [
        given if given.buffer is None else msgspec.structs.replace(given, buffer=place[given.buffer])
        for given in lowering.inputs
    ]
    return Program(
        version=PROGRAM_VERSION,
        stage=stage.name,
        graph_sha256=sha256_of(engine),
        data_bytes=data.size,
        data_sha256=hashlib.sha256(b"".join(data.parts)).hexdigest(),
        buffers=tuple(buffers),
        inputs=tuple(inputs),
        caches=tuple(caches),
        output=place[lowering.draft.output],
        steps=tuple(steps),
    )
