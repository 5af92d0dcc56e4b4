"""What a stage takes against what it holds: its share of the time beside its share of the parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..document import ModelFacts
from ..numbers import percent
from .style import EDGE, INK, new_figure, scale_colour

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BAR = 0.36


def draw_stages(model: ModelFacts, shares: Mapping[str, float]) -> Figure:
    """Two bars for each stage."""
    held = [stage.parameter_share for stage in model.stages]
    rows = range(len(model.stages))
    with new_figure(0.95 + 0.5 * len(model.stages)) as (figure, axes):
        for offset, values, colour, name in (
            (-_BAR / 2, held, EDGE, "share of the parameters"),
            (_BAR / 2, [shares[stage.name] for stage in model.stages], scale_colour(0), "share of the engines' time"),
        ):
            bars = axes.barh(
                [row + offset for row in rows], [value * 100 for value in values], _BAR * 0.94, color=colour, label=name
            )
            axes.bar_label(bars, [percent(value) for value in values], padding=3, size=8, color=INK)
        axes.set_yticks(rows, [stage.name for stage in model.stages])
        axes.tick_params(axis="y", length=0)
        axes.set(xlim=(0, max(*held, *shares.values()) * 115), xlabel="%")
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        figure.legend(loc="outside upper left", ncols=2)
    return figure


def describe_stages(model: ModelFacts, shares: Mapping[str, float]) -> str:
    """The same in words."""
    each = (
        f"{stage.name} holds {percent(stage.parameter_share)} of the parameters and takes {percent(shares[stage.name])} of "
        "the time"
        for stage in model.stages
    )
    return f"Stage by stage: {'; '.join(each)}."
