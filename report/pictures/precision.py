"""Loss against time: what can be had, and what nothing else beats in both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..numbers import label, significant
from .style import EDGE, INK, new_figure, scale_colour

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Point(NamedTuple):
    """A bundle: `loss` in the unit of the axis, `family` the bundle whose model it has."""

    name: str
    family: str
    loss: float
    ms: float


def frontier(points: Sequence[Point]) -> list[Point]:
    """Those that no other beats in loss and time, by loss."""
    best: list[Point] = []
    for point in sorted(points, key=lambda each: (each.loss, each.ms)):
        if not best or point.ms < best[-1].ms:
            best.append(point)
    return best


def draw_precision(points: Sequence[Point], unit: str) -> Figure:
    """A mark for each bundle, models told apart; a line through those that nothing beats."""
    families = list(dict.fromkeys(point.family for point in points))
    with new_figure(2.9) as (figure, axes):
        best = frontier(points)
        axes.plot([p.loss for p in best], [p.ms for p in best], drawstyle="steps-post", color=EDGE, linewidth=1.2, zorder=1)
        for index, family in enumerate(families):
            mine = [point for point in points if point.family == family]
            axes.scatter(
                [p.loss for p in mine],
                [p.ms for p in mine],
                s=42,
                marker="osD^v"[index % 5],
                color=scale_colour(index),
                zorder=2,
            )
        middle = (min(p.loss for p in points) + max(p.loss for p in points)) / 2
        for point in points:
            is_left = point.loss <= middle
            axes.annotate(
                label(point.name),
                (point.loss, point.ms),
                xytext=(7 if is_left else -7, 5),
                textcoords="offset points",
                ha="left" if is_left else "right",
                size=8.5,
                color=INK,
            )
        axes.margins(0.08, 0.16)
        axes.set(xlabel=unit, ylabel="ms per token", ylim=(0, max(p.ms for p in points) * 1.2))
    return figure


def describe_precision(points: Sequence[Point], unit: str) -> str:
    """The same in words."""
    each = (f"{label(p.name)}: {p.loss:.4f} {unit}, {significant(p.ms)} ms per token" for p in points)
    best = ", ".join(label(point.name) for point in frontier(points))
    return f"{'; '.join(each)}. Nothing beats in both: {best}."
