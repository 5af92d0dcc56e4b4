"""Devices by name: their makers' figures, each with its source, and beside them what is assumed to be reached of these."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from ..errors import ConfigError
from ..json_files import decode
from ..precision import PRECISIONS
from .rates import EngineRates, Rates, Reads

Reach = Literal["low", "middle", "high"]
Engines = Literal["recorded", "native", "graph"]
"""On GPUs steps recorded as one graph; on CPUs native steps, or ONNX Runtime's graphs alone."""

_AboveZero = Annotated[float, msgspec.Meta(gt=0)]
_NotNegative = Annotated[float, msgspec.Meta(ge=0)]
_Share = Annotated[float, msgspec.Meta(gt=0, le=1)]


class Figure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A figure and where it is from; null: not known, and why."""

    value: _AboveZero | None
    source: str


class Overheads(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Microseconds of a step, and of each stage, layer and matrix product of it, apart from bytes and arithmetic.

    `column_ns`: nanoseconds of a layer for each column, as in `EngineRates`.
    """

    step_us: _NotNegative
    stage_us: _NotNegative
    layer_us: _NotNegative
    product_us: _NotNegative
    column_ns: _NotNegative = 0.0


class Assumptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What nobody has measured: stated, to be replaced by whoever measures.

    Attributes:
        why: on what grounds.
        bandwidth_share, arithmetic_share: of the maker's figures, at worst and at best.
        memory_share: of the device's memory, what one program may have.
        program_mb: what the process, its libraries and its context on the device take.
        engines: overheads by kind of engines.
        logit_ns: of the host, for each logit.

    Raises:
        ValueError: a worst share above the best.
    """

    why: str
    bandwidth_share: tuple[_Share, _Share]
    arithmetic_share: tuple[_Share, _Share]
    memory_share: _Share
    program_mb: _NotNegative
    engines: dict[Engines, Overheads]
    logit_ns: _NotNegative

    def __post_init__(self) -> None:
        for name in ("bandwidth_share", "arithmetic_share"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} is {low:g} at worst and {high:g} at best, expected no less at best")


class Device(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="data sheet"):
    """A device as its maker describes it, decimal units throughout; arithmetic is dense.

    Attributes:
        assumptions: a name in the file of devices, or, in a file of one's own, what is assumed itself.
        watts: the most that it is allowed to take.
    """

    title: str
    processor: Literal["gpu", "cpu"]
    assumptions: str | Assumptions
    memory_gb: Figure
    bandwidth_gb_s: Figure
    fp32_tflops: Figure
    fp16_tflops: Figure
    int8_tops: Figure
    watts: Figure

    @property
    def on_gpu(self) -> bool:
        """Whether engines for GPUs run on it."""
        return self.processor == "gpu"

    @property
    def assumed(self) -> Assumptions:
        """What is assumed of it."""
        return self.assumptions if isinstance(self.assumptions, Assumptions) else _known().assumptions[self.assumptions]

    @property
    def program_bytes(self) -> float:
        """As `Memory.program`."""
        return self.assumed.program_mb * 1e6

    @property
    def available_bytes(self) -> float | None:
        """As `Memory.available`."""
        return None if self.memory_gb.value is None else self.memory_gb.value * 1e9 * self.assumed.memory_share

    @property
    def power(self) -> float | None:
        """Watts, at most."""
        return self.watts.value

    def rates(self, reach: Reach = "middle", native: bool = True) -> Rates:
        """What it reaches of its figures; `native`: on a CPU by native steps.

        Raises:
            ConfigError: its bandwidth is not known, or nothing is assumed of such engines.
        """
        if self.bandwidth_gb_s.value is None:
            raise ConfigError(f"the memory bandwidth of {self.title} is not known ({self.bandwidth_gb_s.source}): no forecast")
        assumed = self.assumed
        reads = Reads.flat(self.bandwidth_gb_s.value * 1e9 * _reached(assumed.bandwidth_share, reach))
        kind: Engines = "recorded" if self.on_gpu else "native" if native else "graph"
        if kind not in assumed.engines:
            listed = ", ".join(assumed.engines) or "none"
            raise ConfigError(
                f"the assumptions of {self.title}, a {self.processor.upper()}, have overheads of engines: {listed}; expected "
                f"{kind}; add these, or take other assumptions"
            )
        overheads = assumed.engines[kind]
        share = _reached(assumed.arithmetic_share, reach)
        engines = {
            precision: EngineRates(
                stage_s=overheads.stage_us / 1e6,
                layer_s=overheads.layer_us / 1e6,
                product_s=overheads.product_us / 1e6,
                column_s=overheads.column_ns / 1e9,
                weights=reads,
                caches=reads,
                flops=None if (peak := self._peak(precision)) is None else peak * share * 1e12,
            )
            for precision in PRECISIONS
        }
        return Rates(step_s=overheads.step_us / 1e6, logit_s=assumed.logit_ns / 1e9, engines=engines)

    def _peak(self, precision: str) -> float | None:
        """Tera-operations: on GPUs w8 and w4 widen their weights to fp32; on CPUs they and int8 multiply integers."""
        if precision == "int8" or (precision in ("w8", "w4") and not self.on_gpu):
            return self.int8_tops.value
        return self.fp16_tflops.value if precision == "fp16" and self.on_gpu else self.fp32_tflops.value


class MeasuredDevice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="measured"):
    """A machine whose rates were measured, as `foveal forecast --device this --save FILE` writes it.

    Attributes:
        title: its CPU.
        created_utc, threads: when, and with how many.
        memory_bytes: all that it has; null: the system does not say.
        by_engines: rates by kind of engines, of the precisions that were measured.
    """

    title: str
    created_utc: str
    threads: int
    memory_bytes: int | None
    by_engines: dict[Engines, Rates]
    program_mb: float = 110.0

    @property
    def on_gpu(self) -> bool:
        """CPUs are measured."""
        return False

    @property
    def power(self) -> float | None:
        """Its limit is not known."""
        return None

    @property
    def program_bytes(self) -> float:
        """As `Memory.program`."""
        return self.program_mb * 1e6

    @property
    def available_bytes(self) -> float | None:
        """As `Memory.available`."""
        return None if self.memory_bytes is None else float(self.memory_bytes)

    def rates(self, reach: Reach = "middle", native: bool = True) -> Rates:
        """What was measured, at whatever reach.

        Raises:
            ConfigError: engines of that kind were not measured.
        """
        kind: Engines = "native" if native else "graph"
        if kind not in self.by_engines:
            listed = ", ".join(self.by_engines) or "none"
            raise ConfigError(f"{self.title} was measured with engines: {listed}; expected {kind}; measure it again with these")
        return self.by_engines[kind]


AnyDevice = Device | MeasuredDevice


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    assumptions: dict[str, Assumptions]
    devices: dict[str, Device]


@cache
def _known() -> _File:
    return decode(Path(__file__).with_name("devices.json").read_bytes(), _File)


def known_devices() -> Mapping[str, Device]:
    """Those that come with foveal, by name."""
    return _known().devices


def device_named(name: str) -> AnyDevice:
    """A known device, or one of a file of one's own: a name that ends in `.json`.

    Raises:
        ConfigError: no such device; the nearest names are given. Or a file that can't be read, or is no device.
    """
    if name.endswith(".json"):
        return _read(Path(name))
    devices = known_devices()
    if name not in devices:
        near = get_close_matches(name.lower().replace(" ", "-").replace("_", "-"), devices, n=1, cutoff=0.4)
        nearest = f'; did you mean "{near[0]}"?' if near else "."
        raise ConfigError(
            f'unknown device "{name}"{nearest} Known are: {", ".join(devices)}; this, the machine that runs this, measured; '
            "or FILE.json with a device of your own (docs/forecast.md)"
        )
    return devices[name]


def _read(path: Path) -> AnyDevice:
    try:
        found: AnyDevice = decode(path.read_bytes(), AnyDevice)  # type: ignore[arg-type]  # a union of tagged structs
    except OSError as error:
        raise ConfigError(f"{path} can't be read ({error.strerror}); give a file as docs/forecast.md describes it") from error
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{path} is no device ({error}); docs/forecast.md describes the file") from error
    if isinstance(found, Device) and isinstance(found.assumptions, str) and found.assumptions not in _known().assumptions:
        listed = ", ".join(_known().assumptions)
        raise ConfigError(f'{path} takes assumptions "{found.assumptions}", expected one of {listed}, or an object of its own')
    return found


def _reached(share: tuple[float, float], reach: Reach) -> float:
    low, high = share
    return {"low": low, "middle": (low + high) / 2, "high": high}[reach]
