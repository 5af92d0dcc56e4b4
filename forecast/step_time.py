"""What a decode step takes: what the host does, and of each stage that fires its call, its bytes and its arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from .rates import Curve, EngineRates, Rates
from .reuse import Firing
from .shapes import Shape

Bound = Literal["memory bandwidth", "cache bandwidth", "arithmetic", "launch overhead", "host"]
_IN_CACHE = 1.5
"""Bytes that come so many times as fast as memory's come from a cache."""


class StepTime(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds of a decode step, by what they go to; attributes are named as the bounds are.

    `memory` and `cache` are reads at either's speed, `launch` what calls, layers and products take apart from bytes and
    arithmetic, `host` what the host does around the engines.
    """

    memory: float = 0.0
    cache: float = 0.0
    arithmetic: float = 0.0
    launch: float = 0.0
    host: float = 0.0

    @property
    def seconds(self) -> float:
        """All of it: nothing of a step runs beside the rest."""
        return self.memory + self.cache + self.arithmetic + self.launch + self.host

    @property
    def bound(self) -> Bound:
        """What takes most of it."""
        return _BOUNDS[max(self.__struct_fields__, key=lambda name: float(getattr(self, name)))]


_BOUNDS: dict[str, Bound] = {
    "memory": "memory bandwidth",
    "cache": "cache bandwidth",
    "arithmetic": "arithmetic",
    "launch": "launch overhead",
    "host": "host",
}


def step_times(steps: Sequence[Sequence[Firing]], shape: Shape, rates: Rates, batch: int = 1) -> list[StepTime]:
    """What each of some decode steps takes (`reuse.steps_behind`), for `batch` sequences in step.

    Raises:
        KeyError: rates of another precision.
    """
    engine = rates.engines[shape.precision]
    host = rates.step_s + batch * rates.logit_s * shape.vocab_size
    return [_step(step, engine, batch, host) for step in steps]


def mean_of(steps: Sequence[StepTime]) -> StepTime:
    """Of a period."""
    names = StepTime.__struct_fields__
    return StepTime(**{name: sum(getattr(step, name) for step in steps) / len(steps) for name in names})


def worst_of(steps: Sequence[StepTime]) -> StepTime:
    """The one in which most stages fire."""
    return max(steps, key=lambda step: step.seconds)


def _step(step: Sequence[Firing], engine: EngineRates, batch: int, host: float) -> StepTime:
    """Sequences of a batch share the weights, and have keys and values of their own."""
    spent = {"memory": 0.0, "cache": 0.0, "arithmetic": 0.0, "launch": 0.0}
    for stage, cached, own_distance in step:
        spent["launch"] += engine.stage_s + stage.spec.layers * engine.layer_s + stage.products * engine.product_s
        distance = own_distance + (batch - 1) * cached
        read, place = _read(stage.weight_bytes, engine.weights, distance)
        computed = 0.0 if engine.flops is None else 2 * batch * stage.multiplied / engine.flops
        spent["arithmetic" if computed > read else place] += max(computed, read)
        read, place = _read(batch * cached, engine.caches, distance)
        spent[place] += read
    return StepTime(**spent, host=host)


def _read(read: float, curve: Curve, distance: float) -> tuple[float, str]:
    """Seconds, and where the bytes come from."""
    rate = curve.at(distance)
    return read / rate, "cache" if rate > _IN_CACHE * curve.from_memory else "memory"
