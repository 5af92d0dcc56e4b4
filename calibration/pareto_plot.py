"""A picture of what can be had: time per token against loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from .plotting import new_axes, save


class Point(NamedTuple):
    """Relative rise of bits per byte, and milliseconds per token."""

    loss: float
    ms: float


def draw_pareto(out: Path, frontier: Sequence[Point], uniform: Mapping[str, Point], chosen: Point, budget: float) -> None:
    """Draw the frontier (predicted), each precision used throughout and the chosen plan (both measured), and the budget.

    Raises:
        BackendUnavailable: matplotlib is not installed.
    """
    figure, axes = new_axes()
    axes.step(
        [p.loss * 100 for p in frontier], [p.ms for p in frontier], where="post", label="best plans (predicted)", alpha=0.7
    )
    for name, point in uniform.items():
        axes.plot(point.loss * 100, point.ms, "o", color="grey")
        axes.annotate(name, (point.loss * 100, point.ms), textcoords="offset points", xytext=(5, 5))
    axes.plot(chosen.loss * 100, chosen.ms, "*", markersize=14, label="the plan (measured)")
    axes.axvline(budget * 100, linestyle=":", color="grey", label=f"budget, {budget:.2%}")
    axes.set(xlabel="rise of bits per byte, %", ylabel="time per token, ms")
    axes.legend()
    save(figure, out)
