"""The hierarchies of at most so many parameters that a device runs fastest, among those of the same work per token.

Work per token is counted in layer-equivalents, layers over stride: of two models that do as much, that with more layers at
coarse scales has more parameters and reads each of them less often.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import ceil, floor

from ..errors import ConfigError
from ..models.sizes import Sizes
from .devices import AnyDevice
from .forecast import Forecast, Work, forecast
from .model_shapes import Growing

STRIDES = (2, 4, 8, 16)
TOLERANCE = 0.25
"""Layer-equivalents that a hierarchy may have more than was asked for, as whole layers seldom come to the same."""


@dataclass(frozen=True)
class Wanted:
    """What is looked for.

    Attributes:
        parameters: at most.
        layers: layer-equivalents, at least, and at most `TOLERANCE` more.

    Raises:
        ConfigError: numbers that are not above 0, or more layer-equivalents than anybody would wait for.
    """

    parameters: int
    layers: float

    def __post_init__(self) -> None:
        if self.parameters < 1:
            raise ConfigError(f"parameters must be at least 1, got {self.parameters}")
        if not 1 <= self.layers <= MOST_LAYERS:
            raise ConfigError(f"layers must be 1 to {MOST_LAYERS} layer-equivalents, got {self.layers:g}")


MOST_LAYERS = 64


def search(
    wanted: Wanted, sizes: Sizes, precision: str, device: AnyDevice, work: Work, name: str | None = None
) -> list[Forecast]:
    """Forecasts of all hierarchies of `candidates` that have few enough parameters, the fastest first.

    Raises:
        ConfigError: none has: even the smallest takes more.
    """
    found, smallest = [], float("inf")
    for strides, all_layers in candidates(wanted.layers):
        growing = Growing.of(strides, sizes, precision, device.on_gpu)
        for layers in all_layers:
            smallest = min(smallest, growing.parameters_at(layers))
            if growing.parameters_at(layers) <= wanted.parameters:
                found.append(forecast(growing.at(layers), device, work, name))
    if not found:
        raise ConfigError(
            f"no hierarchy of {wanted.layers:g} layer-equivalents has at most {wanted.parameters:,} parameters at these sizes; "
            f"the smallest has {smallest:,.0f}: allow more, ask for fewer layers, or give a smaller --dim or --ff-dim"
        )
    return sorted(found, key=lambda each: (-each.tokens_per_s, each.parameters))


def candidates(layers: float) -> Iterator[tuple[tuple[int, ...], list[tuple[int, ...]]]]:
    """Strides of the levels, and all numbers of layers at them that come to so many layer-equivalents, or a little more.

    vanilla `n@1`; Hourglass `a@1 b@s a@1` and `a@1 b@s c@t b@s a@1`; top-down `b@s a@1` and `c@t b@s a@1`; bottom-up
    `a@1 b@s c@t a@1`; s and t of `STRIDES`, t a multiple of s. Levels on both sides of a coarser one have as many layers.
    """
    for levels in _level_strides():
        distinct = list(dict.fromkeys(levels))
        each = {stride: levels.count(stride) for stride in distinct}
        found = [tuple(counts[stride] for stride in levels) for counts in _counts(distinct, each, layers)]
        if found:
            yield levels, found


def _level_strides() -> Iterator[tuple[int, ...]]:
    yield (1,)
    for stride in STRIDES:
        yield 1, stride, 1
        yield stride, 1
    for inner, outer in product(STRIDES, STRIDES):
        if inner > outer and inner % outer == 0:
            yield 1, outer, inner, outer, 1
            yield inner, outer, 1
            yield 1, outer, inner, 1


def _counts(strides: list[int], each: dict[int, int], layers: float) -> Iterator[dict[int, int]]:
    """Layers by stride, at least one of each: all choices at all strides but the coarsest, which makes up the rest."""
    *finer, coarsest = sorted(strides)
    share = each[coarsest] / coarsest
    for chosen in product(*(range(1, floor(layers * stride / each[stride]) + 1) for stride in finer)):
        done = sum(count * each[stride] / stride for count, stride in zip(chosen, finer, strict=True))
        least = max(ceil((layers - done) / share - 1e-9), 1)
        most = floor((layers + TOLERANCE - done) / share + 1e-9)
        for count in range(least, most + 1):
            yield {**dict(zip(finer, chosen, strict=True)), coarsest: count}
