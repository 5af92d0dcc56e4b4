"""How fast a device is at what a decode step is made of; a data sheet and a measurement both come to this."""

from __future__ import annotations

import math
from itertools import pairwise

import msgspec


class Curve(msgspec.Struct, frozen=True):
    """Bytes per second by how many bytes are read over and over: what fits into a cache is read faster.

    Between two sizes the time of a byte is interpolated over the logarithm of the size; outside it is that of the nearest.

    Raises:
        ValueError: no sizes, not as many rates, any that is not above 0, or sizes that do not grow.
    """

    sizes: list[float]
    per_s: list[float]

    def __post_init__(self) -> None:
        grows = all(below < above for below, above in pairwise([0.0, *self.sizes]))
        if not self.sizes or len(self.sizes) != len(self.per_s) or not grows or not all(rate > 0 for rate in self.per_s):
            raise ValueError(f"sizes that grow from above 0 and a rate above 0 for each, got {self.sizes} and {self.per_s}")

    @classmethod
    def flat(cls, per_s: float) -> Curve:
        """The same for any size."""
        return cls([1.0], [per_s])

    def at(self, size: float) -> float:
        """Bytes per second where so many bytes are read before the same one again."""
        sizes, rates = self.sizes, self.per_s
        if size <= sizes[0]:
            return rates[0]
        for (below, slow), (above, fast) in pairwise(zip(sizes, rates, strict=True)):
            if size <= above:
                share = math.log(size / below) / math.log(above / below)
                return 1 / ((1 - share) / slow + share / fast)
        return rates[-1]

    @property
    def from_memory(self) -> float:
        """Of what fits into no cache."""
        return self.per_s[-1]


class EngineRates(msgspec.Struct, frozen=True, kw_only=True):
    """Of one kind of engines, in one precision.

    Attributes:
        stage_s: what the call of a stage takes around its layers; `layer_s`: a layer, but for its bytes; `product_s`: a matrix
            product, beyond what the layer has of it already.
        weights, caches: how fast matrices, and keys and values, are read.
        flops: floating-point operations per second of many rows at once; None: not known.
    """

    stage_s: float
    layer_s: float
    product_s: float
    weights: Curve
    caches: Curve
    flops: float | None = None


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Of a device: what the host takes for a step and for each logit, and of engines by precision."""

    step_s: float
    logit_s: float
    engines: dict[str, EngineRates]
