"""Time between tokens: how often it is how long, by what fires; and how it goes with the phase."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..document import LatencyFacts, StepGroup
from ..numbers import listed, percent, significant
from .style import INK, new_figure, scale_colour

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_distribution(facts: LatencyFacts) -> Figure:
    """A histogram of steps, those that fire the most stages on top."""
    edges = np.array(facts.edges_ms)
    below = np.zeros(len(edges) - 1)
    with new_figure(2.9) as (figure, axes):
        for index, group in enumerate(facts.groups):
            counts = np.array(group.counts, float)
            axes.bar(
                edges[:-1],
                counts,
                np.diff(edges) * 0.92,
                bottom=below,
                align="edge",
                color=group_colour(facts, index),
                label=f"{group_name(group)} ({percent(group.share)})",
            )
            below += counts
        axes.set(
            xlabel="ms from token to token",
            ylabel="decode steps",
            xlim=(max(0.0, edges[0] - (edges[-1] - edges[0]) * 0.03), edges[-1]),
        )
        axes.grid(axis="x", visible=False)
        figure.legend(loc="outside upper left", ncols=1, alignment="left")
    return figure


def describe_distribution(facts: LatencyFacts) -> str:
    """The same in words."""
    each = (
        f"steps with {group_name(group)}, {percent(group.share)} of all, take {significant(group.itl_ms.p50)} ms (median)"
        for group in facts.groups
    )
    return f"Histogram of the time from token to token: {'; '.join(each)}."


def draw_phases(facts: LatencyFacts) -> Figure:
    """For each phase the median, and a bar from the 10th to the 90th percentile."""
    with new_figure(2.5) as (figure, axes):
        for index in range(len(facts.groups)):
            phases = [phase for phase in facts.phases if phase.group == index]
            at = [phase.phase for phase in phases]
            low, high = [phase.p10_ms for phase in phases], [phase.p90_ms for phase in phases]
            axes.bar(at, np.subtract(high, low), 0.62, bottom=low, color=group_colour(facts, index))
            axes.hlines([phase.p50_ms for phase in phases], np.subtract(at, 0.44), np.add(at, 0.44), color=INK, linewidth=1.6)
        axes.set(xlabel=f"token modulo {facts.period}", ylabel="ms", ylim=(0, None))
        axes.set_xticks(range(0, facts.period or 1, max(1, (facts.period or 1) // 16)))
        axes.grid(axis="x", visible=False)
    return figure


def describe_phases(facts: LatencyFacts) -> str:
    """The same in words."""
    slowest, fastest = (pick(facts.phases, key=lambda phase: phase.p50_ms) for pick in (max, min))
    return (
        f"Median and 10th to 90th percentile of the time to a token by its position modulo {facts.period}: phase "
        f"{slowest.phase} takes longest, {significant(slowest.p50_ms)} ms, phase {fastest.phase} least, "
        f"{significant(fastest.p50_ms)} ms."
    )


def group_name(group: StepGroup) -> str:
    """What its steps fire."""
    if group.coarse is None:
        return "a coarse stage fires"
    return f"{listed(group.coarse)} fire{'s' * (len(group.coarse) == 1)} too" if group.coarse else "no coarse stage fires"


def group_colour(facts: LatencyFacts, index: int) -> str:
    """By how many stages a step fires: the fewest in the colour of the finest scale."""
    sizes = [1 if group.coarse is None else len(group.coarse) for group in facts.groups]
    order = sorted(range(len(sizes)), key=lambda group: sizes[group])
    return scale_colour(order.index(index))
