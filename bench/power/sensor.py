"""What every power sensor is."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event
from typing import Protocol

import msgspec

INTERVAL_S = 0.05  # asked of every sensor; 20 Hz, so that a late sample or two still leave 10 Hz


class SensorInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Where power is read: the sensor, its paths or command, the rails that are summed, and what they do not see."""

    sensor: str
    source: list[str]
    rails: list[str]
    sees: str
    interval_s: float


class PowerSensor(Protocol):
    """Something that reads power over and over."""

    @property
    def info(self) -> SensorInfo: ...

    def watts(self, stop: Event) -> Iterator[float]:
        """Yield a reading, in W, whenever one is taken, until `stop` is set or the sensor ends."""
        ...
