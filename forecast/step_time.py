"""What a decode step takes: what the host does, and of each stage that fires its call, its bytes and its arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from .caching import Firing, shares_in_cache
from .rates import EngineRates, Rates, Reads
from .shapes import Shape

Bound = Literal["memory bandwidth", "cache bandwidth", "arithmetic", "launch overhead", "host"]


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
    """What each of some decode steps takes of a period (`caching.steps_behind`), for `batch` sequences in step.

    Raises:
        KeyError: rates of another precision.
    """
    engine = rates.engines[shape.precision]
    host = rates.step_s + batch * rates.logit_s * shape.vocab_size
    shares = shares_in_cache(steps, rates.cache_bytes, batch)
    return [_step(step, engine, batch, host, shape.columns, shares) for step in steps]


def mean_of(steps: Sequence[StepTime]) -> StepTime:
    """Of a period."""
    names = StepTime.__struct_fields__
    return StepTime(**{name: sum(getattr(step, name) for step in steps) / len(steps) for name in names})


def worst_of(steps: Sequence[StepTime]) -> StepTime:
    """The one in which most stages fire."""
    return max(steps, key=lambda step: step.seconds)


def _step(
    step: Sequence[Firing], engine: EngineRates, batch: int, host: float, columns: int, shares: Mapping[str, float]
) -> StepTime:
    """Sequences of a batch share the weights, and have keys and values of their own.

    What a single row is multiplied by takes no longer than to read it; where several are, arithmetic may.
    """
    memory = cache = arithmetic = launch = 0.0
    for stage, cached in step:
        share = shares[stage.spec.name]
        launch += engine.launch_s(stage.spec.layers, stage.products, columns)
        computed = 2 * batch * stage.multiplied / engine.flops if engine.flops is not None and batch > 1 else 0.0
        weights, keys = _read(stage.weight_bytes, engine.weights, share), _read(batch * cached, engine.caches, share)
        if computed > sum(weights):
            arithmetic, weights = arithmetic + computed, (0.0, 0.0)
        cache, memory = cache + weights[0] + keys[0], memory + weights[1] + keys[1]
    return StepTime(memory=memory, cache=cache, arithmetic=arithmetic, launch=launch, host=host)


def _read(read: float, reads: Reads, share: float) -> tuple[float, float]:
    """Seconds of what is in the cache, and of what is not."""
    return read * share / reads.cached, read * (1 - share) / reads.memory
