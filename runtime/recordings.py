"""Decode steps that were recorded, by all that tells them apart."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable

from .device import Device, Work
from .engines.resident import ResidentStage

Stages = Callable[[], Iterable[ResidentStage]]


class Recordings:
    """Recorded steps of a device; where there may be only so many, the one that was launched longest ago makes room."""

    def __init__(self, device: Device, most: int | None = None) -> None:
        self._device, self._most = device, most
        self._recorded: OrderedDict[Hashable, Work] = OrderedDict()

    def launch(self, key: Hashable) -> bool:
        """Queue a step as it was recorded; False if it was not."""
        if key not in self._recorded:
            return False
        self._recorded.move_to_end(key)
        self._recorded[key]()
        return True

    def record(self, key: Hashable, work: Work, stages: Stages, again: Work | None = None) -> None:
        """Do a step as it is, which lets engines get ready, and record it.

        Args:
            work: queues it.
            stages: those that it ran, asked for when it has.
            again: called in between: puts back what `work` changed on the host.

        Raises:
            DeviceError: it can't be recorded.
        """
        work()
        self._device.synchronize()
        for stage in stages():
            stage.check_recordable()
        if again is not None:
            again()
        recorded = self._device.capture(work)
        while self._most is not None and len(self._recorded) >= self._most:
            self._recorded.popitem(last=False)
        self._recorded[key] = recorded

    def __len__(self) -> int:
        return len(self._recorded)
