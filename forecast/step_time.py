"""What a decode step takes: what the host does, and of each stage that fires its call, its bytes and its arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from .rates import EngineRates, Rates
from .reuse import Firing, steps_behind
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

    def __add__(self, other: StepTime) -> StepTime:
        return StepTime(**{name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__})

    def over(self, count: int) -> StepTime:
        """The share of one among so many."""
        return StepTime(**{name: getattr(self, name) / count for name in self.__struct_fields__})

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


def step_times(shape: Shape, rates: Rates, position: int, batch: int = 1) -> list[StepTime]:
    """Every decode step of a period of firing from a position on, for `batch` sequences in step.

    Raises:
        KeyError: rates of another precision.
    """
    engine = rates.engines[shape.precision]
    host = StepTime(host=rates.step_s + batch * rates.logit_s * shape.vocab_size)
    return [sum((_firing(fired, engine, batch) for fired in step), host) for step in steps_behind(shape, position)]


def mean_of(steps: Sequence[StepTime]) -> StepTime:
    """Of a period."""
    return sum(steps[1:], steps[0]).over(len(steps))


def worst_of(steps: Sequence[StepTime]) -> StepTime:
    """The one in which most stages fire."""
    return max(steps, key=lambda step: step.seconds)


def _firing(fired: Firing, engine: EngineRates, batch: int) -> StepTime:
    """Sequences of a batch share the weights, and have keys and values of their own."""
    stage = fired.stage
    launch = engine.stage_s + stage.spec.layers * engine.layer_s + stage.products * engine.product_s
    distance = fired.distance + (batch - 1) * fired.cached
    weights = _read(stage.weight_bytes, engine, "weights", distance)
    caches = _read(batch * fired.cached, engine, "caches", distance)
    computed = 0.0 if engine.flops is None else 2 * batch * stage.multiplied / engine.flops
    if computed > weights.seconds:
        weights = StepTime(arithmetic=computed)
    return weights + caches + StepTime(launch=launch)


def _read(read: float, engine: EngineRates, what: Literal["weights", "caches"], distance: float) -> StepTime:
    curve = engine.weights if what == "weights" else engine.caches
    rate = curve.at(distance)
    return StepTime(cache=read / rate) if rate > _IN_CACHE * curve.from_memory else StepTime(memory=read / rate)
