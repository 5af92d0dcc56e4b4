"""What it is worth to keep a stage in fp32 that decides when others fire: rounding there moves boundaries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from ..calibration.quality import half_width_of_ratio
from ..precision import Plan, ProductPrecision

_BYTES = {"fp32": 4.0, "fp16": 2.0, "int8": 1.0, "w8": 1.0, "w4": 0.5}
"""Of a weight; scales are left out."""


class Decider(msgspec.Struct, frozen=True, kw_only=True):
    """A stage that decides: the plan with it narrow, and with it in fp32.

    Attributes:
        stage: that decides.
        narrow: its precision where it is not fp32: the plan's, or the fastest of those that were asked for; "fp32" if none of
            its products can be in any of them.
        chosen: which of the two the plan has.
        narrow_loss, wide_loss: relative rise of bits per byte, each on its own schedule.
        narrow_flips, wide_flips: decisions per token that come out otherwise than in fp32, all before them being as in fp32.
        narrow_forced_loss, wide_forced_loss: fired as in fp32: what is lost though no boundary moves.
        gain: of the loss, by fp32; `gain_half_width`: of its 95 % confidence interval, by the spread between windows.
        pays: whether that interval is above 0.
        megabytes_per_token: of weights that fp32 reads more, by how often the stage fires.
    """

    stage: str
    narrow: str
    chosen: str
    narrow_loss: float
    wide_loss: float
    narrow_flips: float
    wide_flips: float
    narrow_forced_loss: float
    wide_forced_loss: float
    gain: float
    gain_half_width: float
    pays: bool
    megabytes_per_token: float

    def __str__(self) -> str:
        if self.narrow == "fp32":
            return f"stage {self.stage}, which decides, is in fp32: none of its products can be in another of these precisions"
        verdict = "it pays" if self.pays else "no gain is shown"
        return (
            f"keeping stage {self.stage}, which decides, in fp32 instead of {self.narrow} costs {self.megabytes_per_token:.3f} "
            f"MB/token and brings the flips from {self.narrow_flips:.2%} to {self.wide_flips:.2%} of tokens, the loss from "
            f"{self.narrow_loss:+.3%} to {self.wide_loss:+.3%} (if no boundary moved, from {self.narrow_forced_loss:+.3%} to "
            f"{self.wide_forced_loss:+.3%}): gain {self.gain:.3%} ± {self.gain_half_width:.3%}, {verdict}; the plan has "
            f"{self.chosen}"
        )


class Followed(NamedTuple):
    """What a plan loses: nats of each window `[W]` on its own schedule, of all on that of fp32; and decisions that flip.

    `reference` is the nats per predicted token of fp32, `tokens` those of all windows.
    """

    nats: npt.NDArray[np.float64]
    forced: float
    reference: float
    flips: int
    tokens: int

    @property
    def expected(self) -> float:
        """Nats of fp32, of all windows: the first token of each is not predicted."""
        return self.reference * (self.tokens - len(self.nats))

    @property
    def loss(self) -> float:
        """On the own schedule."""
        return float(self.nats.sum()) / self.expected - 1

    @property
    def forced_loss(self) -> float:
        """On the schedule of fp32."""
        return self.forced / self.expected - 1

    @property
    def flips_per_token(self) -> float:
        """Decisions that come out otherwise."""
        return self.flips / self.tokens


def weigh_decider(stage: str, narrow: str, is_wide: bool, of_narrow: Followed, of_wide: Followed, saved: float) -> Decider:
    """Compare a plan with the stage narrow and the same with it in fp32; `saved`: bytes per token that narrow weights save."""
    gain = of_narrow.loss - of_wide.loss
    half_width = half_width_of_ratio(of_narrow.nats, of_wide.nats) * (1 + of_wide.loss)
    return Decider(
        stage=stage,
        narrow=narrow,
        chosen="fp32" if is_wide else narrow,
        narrow_loss=of_narrow.loss,
        wide_loss=of_wide.loss,
        narrow_flips=of_narrow.flips_per_token,
        wide_flips=of_wide.flips_per_token,
        narrow_forced_loss=of_narrow.forced_loss,
        wide_forced_loss=of_wide.forced_loss,
        gain=gain,
        gain_half_width=half_width,
        pays=gain > half_width,
        megabytes_per_token=saved / 1e6,
    )


def with_stage(plan: Plan, stage: str, precision: str) -> Plan:
    """The plan with a stage, and all of its products, in another precision."""
    products = {name: given for name, given in plan.products.items() if not name.startswith(f"{stage}/")}
    return msgspec.structs.replace(plan, stages={**plan.stages, stage: precision}, products=products)


def narrow_name(products: Sequence[ProductPrecision]) -> str:
    """What the products are that are not fp32: one precision, or several."""
    return " and ".join(sorted({product.obtained for product in products} - {"fp32"})) or "fp32"


def bytes_saved(products: Sequence[ProductPrecision]) -> float:
    """By which the products' weights are smaller than in fp32."""
    return sum(product.rows * product.columns * (4 - _BYTES[product.obtained]) for product in products)
