"""A measurement that was saved, and whether it is one of these bundles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...bench.result import BenchResult, read_result
from ...errors import ConfigError
from ..document import ModelFacts


def read_measured(path: Path, models: Sequence[ModelFacts]) -> BenchResult:
    """What `foveal bench --save` wrote of these bundles; it may hold others too.

    Raises:
        ConfigError: it can't be read, is no benchmark's result or one of a newer foveal, or lacks a bundle, or has figures of
            another model under its name.
    """
    result = read_result(path)
    for model in models:
        _require(path, result, model)
    return result


def _require(path: Path, result: BenchResult, model: ModelFacts) -> None:
    found = next((measured for measured in result.models if measured.name == model.name), None)
    if found is None:
        names = ", ".join(measured.name for measured in result.models) or "none"
        raise ConfigError(f"{path} has no figures of {model.name}, only of: {names}; measure them all in one run")
    was, is_now = (
        (one.hierarchy, one.precision, one.parameters, [stage.name for stage in one.stages]) for one in (found, model)
    )
    if was != is_now:
        raise ConfigError(
            f"{path} has figures of another {model.name}: {_told(*was[:3])}; the bundle is {_told(*is_now[:3])}; measure it "
            "again"
        )


def _told(hierarchy: str, precision: str, parameters: int) -> str:
    return f'"{hierarchy}", {precision}, {parameters:,} parameters'
