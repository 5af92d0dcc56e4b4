"""The program of a stage of a bundle: read, and checked against all that it must keep to."""

from __future__ import annotations

import mmap
from pathlib import Path

import msgspec
import numpy as np

from ...bundle import Bundle
from ...contract import StageSpec
from ...contract.program import Program
from ...contract.program_checks import problem_of_program
from ...errors import BundleError, EngineMismatchError
from ...json_files import decode
from ...sidecar import EngineSidecar
from ..rows import Array


def read_program(bundle: Bundle, stage: StageSpec, sidecar: EngineSidecar) -> tuple[Program, Path] | None:
    """A stage's program and its file of weights; None: the bundle has none.

    Raises:
        BundleError: what is there is no program, or its weights are others.
        EngineMismatchError: it leaves its buffers, its weights or its caches, or was made from another engine.
    """
    names = bundle.program(stage.name)
    if names is None:
        return None
    path, weights = (bundle.file(name) for name in names)
    try:
        program = decode(path.read_bytes(), Program)
    except msgspec.MsgspecError as error:
        raise BundleError(f"{path} is not a program: {error}; build the engines again") from error
    if problem := problem_of_program(program, stage, sidecar.cache_widths, sidecar.cache_dtype):
        raise EngineMismatchError(
            f'the engine of stage "{stage.name}" does not run as the manifest describes it: its program can\'t be followed, '
            f"{problem}; convert the checkpoint again"
        )
    entry = bundle.manifest.files.get(names[1])
    if entry is None or (entry.bytes, entry.sha256) != (program.data_bytes, program.data_sha256):
        raise BundleError(f"{weights} holds other weights than {path} was written for; build the engines again")
    if program.graph_sha256 != sidecar.engine_sha256:
        raise EngineMismatchError(
            f'the program of stage "{stage.name}" was made from another engine than the one beside it; build the engines again'
        )
    return program, weights


def map_weights(path: Path, size: int) -> Array:
    """A file in memory, bytes `[size]`: read when it is used, and shared with other processes that map it.

    Raises:
        BundleError: it has another size.
    """
    with path.open("rb") as file:
        found = file.seek(0, 2)
        if found != size:
            raise BundleError(f"{path} has {found} bytes, expected {size}; it is truncated or altered: copy the bundle again")
        if not size:
            return np.zeros(0, np.uint8)
        mapped = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
    return np.frombuffer(mapped, np.uint8)
