"""Read a sensor in a thread, for as long as a benchmark takes."""

from __future__ import annotations

import time
from threading import Event, Thread

import msgspec

from ...errors import ConfigError
from .sensor import PowerSensor

_FIRST_SAMPLE_S = 10.0
_JOIN_S = 5.0


class PowerSamples(msgspec.Struct, frozen=True, kw_only=True):
    """Raw readings in order: monotonic nanoseconds, and watts."""

    time_ns: list[int]
    watts: list[float]


class PowerSampler:
    """All readings since it was entered, each stamped when it arrived. One thread writes, any may read."""

    def __init__(self, sensor: PowerSensor) -> None:
        self.info = sensor.info
        self._sensor = sensor
        self._stop, self._first = Event(), Event()
        self._samples: list[tuple[int, float]] = []
        self._failure: str | None = None
        self._thread = Thread(target=self._read, name="power", daemon=True)

    def between(self, began_ns: int, ended_ns: int) -> PowerSamples:
        """The readings of a window, and one on each side of it where there are any, to interpolate its ends.

        Waits for the reading after the window, at most ten intervals.
        """
        deadline = time.monotonic_ns() + round(10 * self.info.interval_s * 1e9)
        while self._samples[-1][0] < ended_ns and time.monotonic_ns() < deadline:
            time.sleep(self.info.interval_s / 10)
        samples = list(self._samples)
        first = max((i for i, (at, _) in enumerate(samples) if at <= began_ns), default=0)
        last = min((i for i, (at, _) in enumerate(samples) if at >= ended_ns), default=len(samples) - 1)
        kept = samples[first : last + 1]
        return PowerSamples(time_ns=[at for at, _ in kept], watts=[watts for _, watts in kept])

    def __enter__(self) -> PowerSampler:
        """Start, and wait for the first reading.

        Raises:
            ConfigError: the sensor gives none.
        """
        self._thread.start()
        self._first.wait(_FIRST_SAMPLE_S)
        if not self._samples:
            self._stop.set()
            why = self._failure or f"nothing came in {_FIRST_SAMPLE_S:.0f} s"
            raise ConfigError(f"{self.info.sensor} gave no reading: {why}; try `{self.info.source[0]}`, or leave out --power")
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(_JOIN_S)

    def _read(self) -> None:
        try:
            for watts in self._sensor.watts(self._stop):
                self._samples.append((time.monotonic_ns(), watts))
                self._first.set()
            self._failure = "it ended"
        except (OSError, ValueError) as error:
            self._failure = str(error)
        finally:
            self._first.set()
