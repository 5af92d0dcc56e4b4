"""Models side by side: tokens per second, and the memory bandwidth that they reach."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...bench.result import ModelResult, RooflineResult
from ..numbers import label, percent, significant
from .style import EDGE, INK, PANEL, new_figure, scale_colour, thousands

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BEHIND: Any = {"xytext": (4, 0), "textcoords": "offset points", "va": "center", "size": 8.5}
_GROUND = {"facecolor": PANEL, "edgecolor": "none", "pad": 0.6}
"""Behind a figure that a line may cross."""


def draw_rates(models: Sequence[ModelResult], families: Sequence[int]) -> Figure:
    """Tokens per second while decoding; a line from the slowest round to the fastest. `families`: which model each is of."""
    with new_figure(0.75 + 0.36 * len(models)) as (figure, axes):
        rates = [model.latency.decode_tokens_per_s for model in models]
        rounds = [model.latency.decode_tokens_per_s_by_round for model in models]
        axes.barh(range(len(models)), rates, 0.66, color=[scale_colour(family) for family in families])
        axes.hlines(
            range(len(models)), [min(each) for each in rounds], [max(each) for each in rounds], color=INK, linewidth=1.4
        )
        for row, (rate, each) in enumerate(zip(rates, rounds, strict=True)):
            axes.annotate(significant(rate), (max(rate, *each), row), **_BEHIND)
        _rows(axes, models)
        thousands(axes.xaxis)
        axes.set(xlabel="tokens/s", xlim=(0, max(map(max, rounds)) * 1.16))
    return figure


def describe_rates(models: Sequence[ModelResult]) -> str:
    """The same in words."""
    each = (f"{label(model.name)} {significant(model.latency.decode_tokens_per_s)}" for model in models)
    return f"Medians of rounds: {', '.join(each)}."


def draw_roofline(models: Sequence[ModelResult]) -> Figure:
    """GB/s of weights and of caches that decoding reads, against what memory gives."""
    measured = [(model, line) for model in models if (line := model.roofline) is not None]
    with new_figure(1.0 + 0.36 * len(measured)) as (figure, axes):
        rows = range(len(measured))
        weights = [line.achieved_weights_gb_s for _, line in measured]
        caches = [line.achieved_gb_s - line.achieved_weights_gb_s for _, line in measured]
        roof = measured[0][1].memory_bandwidth_gb_s
        weights_bars = axes.barh(rows, weights, 0.66, color=scale_colour(0), label="weights")
        caches_bars = axes.barh(rows, caches, 0.66, left=weights, color=scale_colour(1), label="caches")
        roof_line = axes.axvline(
            roof, color=INK, linewidth=1.4, linestyle=(0, (4, 2)), label=f"this machine's memory, {significant(roof)} GB/s"
        )
        for row, (_, one) in enumerate(measured):
            axes.annotate(percent(one.share), (one.achieved_gb_s, row), bbox=_GROUND, **_BEHIND)
        _rows(axes, [model for model, _ in measured])
        axes.set(xlabel="GB/s", xlim=(0, max(roof, *np.add(weights, caches)) * 1.14))
        figure.legend(handles=[weights_bars, caches_bars, roof_line], loc="outside upper left", ncols=2, handlelength=1.6)
    return figure


def describe_roofline(models: Sequence[ModelResult]) -> str:
    """The same in words."""
    lines: list[tuple[str, RooflineResult]] = [(m.name, m.roofline) for m in models if m.roofline is not None]
    each = (f"{label(name)} {significant(line.achieved_gb_s)} GB/s, {percent(line.share)}" for name, line in lines)
    return f"Bytes read per second while decoding, of {significant(lines[0][1].memory_bandwidth_gb_s)} GB/s: {'; '.join(each)}."


def _rows(axes: Axes, models: Sequence[ModelResult]) -> None:
    axes.set_yticks(range(len(models)), [label(model.name) for model in models])
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_color(EDGE)
