"""Memory against the length of the text: what the subject takes, part by part, and all that the others take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..document import MemoryFacts
from ..numbers import label, megabytes
from .style import INK, new_figure, scale_colour, thousands

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LINES = ("-", (0, (6, 2)), (0, (1, 1.2)), (0, (6, 2, 1, 2)), (0, (3, 3)))
"""So that lines upon one another are both seen."""
PARTS = (("weights", "weights"), ("caches", "caches of keys and values"), ("rows", "hidden states"))


def draw_memory(facts: MemoryFacts) -> Figure:
    """Areas upon one another; dots for working memory, which was measured at some lengths."""
    tokens = [point.tokens for point in facts.points]
    parts = [[getattr(point, field) / 1e6 for point in facts.points] for field, _ in PARTS]
    working = [point for point in facts.points if point.working is not None]
    with new_figure(2.9) as (figure, axes):
        axes.stackplot(
            tokens, parts, labels=[name for _, name in PARTS], colors=[scale_colour(0), scale_colour(1), scale_colour(3)]
        )
        if working:
            tops = [(point.held + (point.working or 0)) / 1e6 for point in working]
            axes.plot([point.tokens for point in working], tops, "o", color=INK, markersize=4, label="with working memory")
        thousands(axes.xaxis)
        axes.set(xlabel="tokens", ylabel="MB", xlim=(0, tokens[-1] * 1.02), ylim=(0, None))
        figure.legend(loc="outside upper left", ncols=2)
    return figure


def draw_totals(models: Sequence[MemoryFacts]) -> Figure:
    """A line for each bundle, its name at the end."""
    with new_figure(2.9) as (figure, axes):
        thousands(axes.xaxis)
        ends = [facts.points[-1].held / 1e6 for facts in models]
        for index, facts in enumerate(models):
            axes.plot(
                [point.tokens for point in facts.points],
                [point.held / 1e6 for point in facts.points],
                color=scale_colour(index),
                linewidth=1.8,
                linestyle=_LINES[index % len(_LINES)],
                label=label(facts.name),
            )
        axes.set(xlabel="tokens", ylabel="weights and state, MB", xlim=(0, None), ylim=(0, max(ends) * 1.06))
        figure.legend(loc="outside upper left", ncols=2)
    return figure


def describe_memory(facts: MemoryFacts) -> str:
    """The first picture in words."""
    first, last = facts.points[0], facts.points[-1]
    return (
        f"{megabytes(last.weights)} MB of weights at any length; caches and hidden states grow from "
        f"{megabytes(first.state)} MB at {first.tokens} token to {megabytes(last.state)} MB at "
        f"{last.tokens:,}."
    )


def describe_totals(models: Sequence[MemoryFacts]) -> str:
    """The second picture in words."""
    each = (
        f"{label(facts.name)} {megabytes(facts.points[-1].held)} MB at {facts.points[-1].tokens:,} tokens" for facts in models
    )
    return f"Weights and state: {'; '.join(each)}."
