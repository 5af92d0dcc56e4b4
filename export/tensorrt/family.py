"""What the TensorRT engines of one model have in common, checked before anything is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...bundle import ModelInfo
from ...contract import StageSpec
from ...errors import ConfigError
from ...runtime.engines.tensorrt_library import Library, library_of
from ...sidecar import TensorRTLibrary
from ..graphs.dialect import CLASSIC, MODERN, Dialect, dialect_named
from ..graphs.gpu import DeviceFamily
from .options import EngineOptions

MODERN_SINCE = (11,)
"""The first release of `tensorrt` whose parser takes the ops of the dialect `modern`, as every TensorRT-RTX does."""


@dataclass(frozen=True)
class Family(DeviceFamily):
    """All TensorRT engines of one model; also the library that builds them, and what is asked of it."""

    library: Library
    options: EngineOptions


def family_of(
    model: ModelInfo, stages: Sequence[StageSpec], target: TensorRTLibrary, options: EngineOptions | None = None
) -> Family:
    """Check what is asked of a model's engines against the model and the library.

    Raises:
        BackendUnavailable: the library is not installed.
        ConfigError: an option means nothing to the model or the library.
    """
    asked, library = options or EngineOptions(), library_of(target)
    limits = asked.limits(model)
    if library.is_rtx and asked.timing_cache is not None:
        raise ConfigError(f"{library} measures nothing while it builds, so it has no timing cache; leave it out")
    if not library.is_rtx and asked.compute_capabilities:
        raise ConfigError(
            f"{library} builds for the GPU it finds, got compute capabilities {', '.join(asked.compute_capabilities)}; "
            "leave them out and build on such a GPU, or build for tensorrt-rtx"
        )
    known = compute_capabilities(library)
    for capability in asked.compute_capabilities:
        if capability not in known:
            raise ConfigError(f'{library} does not build for compute capability "{capability}"; expected {", ".join(known)}')
    dialect = _best_dialect(library) if asked.dialect is None else dialect_named(asked.dialect)
    return Family(model, tuple(stages), limits, dialect, library, asked)


def compute_capabilities(library: Library) -> Mapping[str, Any]:
    """Those that TensorRT-RTX can build for with no GPU, as `"8.9"`, and what it calls them; none for `tensorrt`."""
    if not library.is_rtx:
        return {}
    members = library.module.ComputeCapability.__members__
    return {f"{name[2:-1]}.{name[-1]}": member for name, member in members.items() if name.startswith("SM")}


def _best_dialect(library: Library) -> Dialect:
    return MODERN if library.is_rtx or library.release >= MODERN_SINCE else CLASSIC
