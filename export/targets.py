"""What the engines of one model have in common, by target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from ..bundle import ModelInfo
from ..contract import StageSpec
from ..errors import ConfigError
from ..sidecar import TensorRTLibrary
from .graphs.dialect import MODERN, dialect_named
from .graphs.gpu import DeviceFamily
from .tensorrt.family import family_of
from .tensorrt.options import EngineOptions


def family_for(
    model: ModelInfo, stages: Sequence[StageSpec], target: str, options: EngineOptions | None = None
) -> DeviceFamily | None:
    """Check what is asked of a target's engines; None for `cpu`, whose engines take any shape and no options.

    Raises:
        BackendUnavailable: the target's compiler is not installed.
        ConfigError: options that mean nothing to the target or the model.
    """
    if target in ("tensorrt", "tensorrt-rtx"):
        return family_of(model, stages, cast(TensorRTLibrary, target), options)
    if target == "cuda":
        asked = options or EngineOptions()
        _refuse_building(asked)
        dialect = MODERN if asked.dialect is None else dialect_named(asked.dialect)
        return DeviceFamily(model, tuple(stages), asked.limits(model), dialect)
    if options is not None:
        raise ConfigError(f'engine options are for GPUs, got them for target "{target}"; leave them out')
    return None


def _refuse_building(asked: EngineOptions) -> None:
    """Engines for `cuda` are graphs: ONNX Runtime compiles them where they are loaded."""
    shapes = EngineOptions(
        max_batch=asked.max_batch, capacity=asked.capacity, max_prefill=asked.max_prefill, dialect=asked.dialect
    )
    if asked != shapes:
        raise ConfigError(
            "engines for cuda are compiled where they are loaded: of the engine options they take max_batch, capacity and "
            "max_prefill; leave the others out"
        )
