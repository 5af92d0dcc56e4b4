"""Loss against time: what can be had, and what nothing else beats in both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..numbers import label, significant
from .style import EDGE, new_figure, scale_colour

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
    """A mark of its own for each bundle, a colour for each model; a line through those that nothing beats."""
    families = list(dict.fromkeys(point.family for point in points))
    with new_figure(2.9) as (figure, axes):
        best = frontier(points)
        axes.plot([p.loss for p in best], [p.ms for p in best], drawstyle="steps-post", color=EDGE, linewidth=1.2, zorder=1)
        for index, point in enumerate(points):
            axes.scatter(
                point.loss,
                point.ms,
                s=46,
                marker="osD^vP*X"[index % 8],
                color=scale_colour(families.index(point.family)),
                label=label(point.name),
                zorder=2,
            )
        axes.margins(x=0.08)
        axes.set(xlabel=unit, ylabel="ms per token", ylim=(0, max(p.ms for p in points) * 1.1))
        figure.legend(loc="outside upper left", ncols=2)
    return figure


def describe_precision(points: Sequence[Point], unit: str) -> str:
    """The same in words."""
    each = (f"{label(p.name)}: {p.loss:.4f} {unit}, {significant(p.ms)} ms per token" for p in points)
    best = ", ".join(label(point.name) for point in frontier(points))
    return f"{'; '.join(each)}. Nothing beats in both: {best}."
