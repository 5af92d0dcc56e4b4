"""How fast a device is at what a decode step is made of; a data sheet and a measurement both come to this."""

from __future__ import annotations

from typing import Annotated

import msgspec


class Reads(msgspec.Struct, frozen=True):
    """Bytes per second, out of the cache and out of memory.

    Raises:
        ValueError: one that is not above 0.
    """

    cached: float
    memory: float

    def __post_init__(self) -> None:
        if not (self.cached > 0 and self.memory > 0):
            raise ValueError(f"rates above 0, got {self.cached} and {self.memory}")

    @classmethod
    def flat(cls, per_s: float) -> Reads:
        """The same wherever the bytes are."""
        return cls(per_s, per_s)


class EngineRates(msgspec.Struct, frozen=True, kw_only=True):
    """Of one kind of engines, in one precision.

    Attributes:
        stage_s: what the call of a stage takes around its layers; `layer_s`: a layer, but for its bytes; `product_s`: a matrix
            product, beyond what the layer has of it already; `column_s`: a layer again, for each column of its rows and of its
        widest ones (norms, activations, sums).
        weights, caches: how fast matrices, and keys and values, are read.
        flops: floating-point operations per second of many rows at once; None: not known.
    """

    stage_s: float
    layer_s: float
    product_s: float
    column_s: float = 0.0
    weights: Reads
    caches: Reads
    flops: Annotated[float, msgspec.Meta(gt=0)] | None = None

    def launch_s(self, layers: int, products: int, columns: int) -> float:
        """What a firing of a stage takes apart from bytes and products; `columns` of its rows and of its widest ones."""
        return self.stage_s + layers * (self.layer_s + columns * self.column_s) + products * self.product_s


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Of a device: what the host takes for a step and for each logit, the size of its last cache as far as a model has it for
    itself (0: none that is known), and of engines by precision."""

    step_s: float
    logit_s: float
    cache_bytes: float = 0.0
    engines: dict[str, EngineRates]
