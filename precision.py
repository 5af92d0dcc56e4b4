"""Precisions, and which matrix product of which stage gets which.

    fp32   as trained
    fp16   matrix products and attention in half precision; norms and the residual stream stay wider
    int8   8-bit weights (per output column) and activations (per tensor, calibrated on text)
    w8     8-bit weights (per output column), activations as they are
    w4     4-bit weights in blocks, activations as they are

A product is named after its place: `"4/stack/layers/0/attention/qkv"` is in stage `4`.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from .errors import ConfigError
from .files import write_atomically
from .json_files import decode

PRECISIONS = ("fp32", "fp16", "int8", "w8", "w4")
INTEGERS = ("int8", "w8", "w4")
"""Precisions whose weights are integers, so that keys and values may be int8 on the CPU."""
CACHES = ("auto", "fp32")
CALIBRATED = ("fp16", "int8")
"""Precisions that depend on what the activations are, and so need text."""


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A precision for every stage (`default` where none is named), with exceptions for single products.

    `head`: whether the output head's product takes its stage's precision; else it stays fp32. `embedding`: whether the token
    table does (as fp16 rows in `fp16`, as 8-bit rows in the others). `cache`: what CPU engines keep keys and values
    in: `"auto"` is int8 where the attention's projections are int8, w8 or w4 and there is text to calibrate on, else fp32.

    Raises:
        ConfigError: an unknown precision or kind of cache.
    """

    default: str = "fp32"
    stages: dict[str, str] = {}
    products: dict[str, str] = {}
    head: bool = True
    embedding: bool = False
    cache: str = "auto"

    def __post_init__(self) -> None:
        for precision in sorted(self.used):
            check_precision(precision)
        if self.cache not in CACHES:
            raise ConfigError(f'unknown cache "{self.cache}"; expected one of {", ".join(CACHES)}')

    def of_stage(self, stage: str) -> str:
        """The precision of a stage's products, exceptions aside."""
        return self.stages.get(stage, self.default)

    def of_product(self, stage: str, product: str) -> str:
        """The precision of one product."""
        return self.products.get(product, self.of_stage(stage))

    def needs_calibration(self) -> bool:
        """Whether any precision in it depends on activations."""
        return not self.used.isdisjoint(CALIBRATED)

    def learns_from_text(self, target: str) -> bool:
        """Whether calibration text changes what is built: ranges, how w4 rounds, or the scales of int8 caches."""
        return not self.used.isdisjoint({*CALIBRATED, "w4"}) or self.has_int8_caches(target)

    def has_int8_caches(self, target: str) -> bool:
        """Whether engines of `target` may keep keys and values in int8, if there is text."""
        return target == "cpu" and self.cache == "auto" and not self.used.isdisjoint(INTEGERS)

    @property
    def used(self) -> set[str]:
        """All precisions in it."""
        return {self.default, *self.stages.values(), *self.products.values()}

    @property
    def label(self) -> str:
        """One word: the precision if only one occurs in the plan, else `"mixed"`."""
        return next(iter(self.used)) if len(self.used) == 1 else "mixed"


class CacheScale(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What 1 stands for in the int8 keys and values of one layer."""

    key: float
    value: float


class ProductPrecision(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one matrix product `[K, N]` was asked to be and is; `reason` says why the two differ."""

    product: str
    rows: int
    columns: int
    asked: str
    obtained: str
    kernel: str = ""
    reason: str = ""


def check_precision(precision: str) -> None:
    """Raise ConfigError unless `precision` can be built."""
    if precision not in PRECISIONS:
        raise ConfigError(f'unknown precision "{precision}"; expected one of {", ".join(PRECISIONS)}')


def read_plan(path: str | Path) -> Plan:
    """Read a plan's JSON.

    Raises:
        ConfigError: no such file, or it is not a plan.
    """
    try:
        return decode(Path(path).read_bytes(), Plan)
    except OSError as error:
        raise ConfigError(
            f"no plan at {path}: {error.strerror}; write one with `foveal calibrate BUNDLE --budget 1%`"
        ) from error
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{path} is not a precision plan: {error}") from error


def write_plan(path: Path, plan: Plan) -> None:
    """Write a plan as JSON, whole or not at all."""
    write_atomically(path, msgspec.json.format(msgspec.json.encode(plan), indent=2) + b"\n")
