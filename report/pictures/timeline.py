"""Which tokens fire which stage: a row for each stage, a mark for each firing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..document import ModelFacts, Timeline
from ..numbers import often
from .hierarchy import rate_of
from .style import colours_by_stride, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_timeline(model: ModelFacts, timeline: Timeline) -> Figure:
    """Stages in dataflow order, tokens from left to right."""
    colours = colours_by_stride({stage.name: rate_of(stage) for stage in model.stages})
    with new_figure(0.75 + 0.3 * len(timeline.fires)) as (figure, axes):
        for row, (name, tokens) in enumerate(timeline.fires.items()):
            axes.broken_barh([(token - 0.42, 0.84) for token in tokens], (row - 0.36, 0.72), facecolors=colours[name])
        axes.set_yticks(range(len(timeline.fires)), list(timeline.fires))
        axes.tick_params(axis="y", length=0)
        axes.set(xlim=(-0.6, timeline.tokens - 0.4), ylim=(len(timeline.fires) - 0.4, -0.6), xlabel="token")
        axes.set_xticks(range(0, timeline.tokens, 8 if timeline.tokens > 16 else 4))
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
    return figure


def describe_timeline(model: ModelFacts, timeline: Timeline) -> str:
    """The same in words."""
    stages = {stage.name: stage for stage in model.stages}
    each = (
        f"{name} fires {often(stages[name].stride, stages[name].expected)}, {len(tokens)} times"
        for name, tokens in timeline.fires.items()
    )
    return f"Of {timeline.tokens} tokens: {'; '.join(each)}."
