"""Reading what a benchmark wrote, of whichever kind it is."""

from __future__ import annotations

from pathlib import Path

import msgspec

from ..errors import ConfigError
from ..json_files import decode
from .result import BenchResult, read_result, require_rounds, require_version
from .sweep_result import SWEEP_SCHEMA_VERSION, SweepResult


class _Kind(msgspec.Struct):
    """What tells them apart."""

    points: list[msgspec.Raw] | None = None
    models: list[msgspec.Raw] | None = None


def read_saved(path: Path) -> BenchResult | SweepResult:
    """A result that `foveal bench --save` or `foveal bench sweep --save` wrote.

    Raises:
        ConfigError: it can't be read, is no such result, one of a newer foveal, or its rounds were altered.
    """
    try:
        kind = msgspec.json.decode(path.read_bytes(), type=_Kind)
    except (OSError, msgspec.MsgspecError):
        return read_result(path)  # which says what is wrong
    if kind.points is None:
        return read_result(path)
    try:
        result = decode(path.read_bytes(), SweepResult)
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{path} holds no sweep's result ({error}); write one: foveal bench sweep ... --save F") from error
    require_version(path, "sweep", result.schema_version, SWEEP_SCHEMA_VERSION)
    for point in result.points:
        require_rounds(path, f"{point.label}: tokens_per_s", point.tokens_per_s_by_round, result.rounds)
    return result
