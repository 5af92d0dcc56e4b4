"""The stages as they follow one another: the coarser, the narrower; a slab for each layer; arrows from what is read."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..document import ModelFacts, Read, StageFacts
from ..numbers import label, millions, often
from .style import INK, MUTED, colours_by_stride, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MIDDLE, _WIDEST, _TEXT, _RIGHT = 2.3, 3.2, 4.6, 9.95
"""Where boxes and words are, in units of the drawing's width of 10."""
_SLAB, _MOST_SLABS, _GAP, _LEAST = 0.17, 16, 0.62, 0.9


def draw_hierarchy(model: ModelFacts) -> Figure:
    """A row for each stage in dataflow order, tokens above, logits below."""
    heights = [max(_LEAST, _SLAB * min(stage.layers, _MOST_SLABS)) for stage in model.stages]
    tops, top = [], _GAP + 0.2
    for height in heights:
        tops.append(top)
        top += height + _GAP
    total = top + 0.25
    with new_figure(total * 0.48) as (figure, axes):
        axes.set_axis_off()
        axes.set(xlim=(0, 10), ylim=(total, 0))
        colours = colours_by_stride({stage.name: rate_of(stage) for stage in model.stages})
        widest = max(rate_of(stage) for stage in model.stages)
        boxes: dict[str, tuple[float, float, float]] = {}
        for stage, height, at in zip(model.stages, heights, tops, strict=True):
            width = _width(rate_of(stage), widest)
            _draw_slabs(axes, stage, at, width, height, colours[stage.name])
            _draw_words(axes, stage, at + height / 2)
            boxes[stage.name] = at, height, width
        _draw_reads(axes, model, boxes)
        axes.text(_MIDDLE, 0.2, "token ids", ha="center", va="center", color=MUTED)
        axes.text(_MIDDLE, total - 0.15, "logits", ha="center", va="center", color=MUTED)
        _arrow(axes, (_MIDDLE, 0.38), (_MIDDLE, tops[0]))
        _arrow(axes, (_MIDDLE, tops[-1] + heights[-1]), (_MIDDLE, total - 0.32))
    return figure


def describe_hierarchy(model: ModelFacts) -> str:
    """The same in words."""
    stages = "; ".join(
        f"{stage.name} fires {often(stage.stride, stage.expected)}, {layers_of(stage)}, {millions(stage.parameters)} "
        f"parameters, reads {reads_of(stage)}"
        for stage in model.stages
    )
    return f"{label(model.name)}, stages from tokens to logits: {stages}."


def rate_of(stage: StageFacts) -> float:
    """Tokens from firing to firing."""
    return stage.stride if stage.expected is None else stage.expected


def layers_of(stage: StageFacts) -> str:
    """`2 layers`."""
    return f"{stage.layers} layer{'s' * (stage.layers != 1)}"


def reads_of(stage: StageFacts) -> str:
    """What its inputs are."""
    return " + ".join(map(_read, stage.reads)) or "nothing"


def _read(read: Read) -> str:
    if read.source is None:
        return "token ids" if read.rows is None or read.rows == 1 else f"{read.rows} token ids"
    if read.rows is None:
        return f"spans of {read.source}"
    return read.source if read.rows == 1 else f"{read.rows} rows of {read.source}"


def _width(rate: float, widest: float) -> float:
    return _WIDEST * (1 - 0.62 * math.log(rate) / math.log(widest)) if widest > 1 else _WIDEST


def _draw_slabs(axes: Axes, stage: StageFacts, top: float, width: float, height: float, colour: str) -> None:
    from matplotlib.patches import FancyBboxPatch

    slabs = max(1, min(stage.layers, _MOST_SLABS))
    each = height / slabs
    for number in range(slabs):
        corner = (_MIDDLE - width / 2, top + number * each + 0.02)
        round_corners = f"round,pad=0,rounding_size={min(0.06, each / 4)}"
        axes.add_patch(FancyBboxPatch(corner, width, each - 0.04, boxstyle=round_corners, facecolor=colour, edgecolor="none"))


def _draw_words(axes: Axes, stage: StageFacts, middle: float) -> None:
    axes.text(_TEXT, middle - 0.32, stage.name, ha="left", va="center", weight="bold", color=INK)
    facts = f"{often(stage.stride, None) if stage.expected is None else f'~1 token in {stage.expected:g}'}, {layers_of(stage)}"
    axes.text(_RIGHT, middle - 0.32, f"{millions(stage.parameters)} parameters", ha="right", va="center", color=MUTED, size=8)
    axes.text(_TEXT, middle, facts, ha="left", va="center", color=MUTED, size=8)
    axes.text(_TEXT, middle + 0.3, f"reads {reads_of(stage)}", ha="left", va="center", color=MUTED, size=8)


def _draw_reads(axes: Axes, model: ModelFacts, boxes: dict[str, tuple[float, float, float]]) -> None:
    """Straight from the stage above; around the left side from one further up."""
    order = [stage.name for stage in model.stages]
    for index, stage in enumerate(model.stages):
        top, height, width = boxes[stage.name]
        for source in dict.fromkeys(read.source for read in stage.reads):
            if source is None:
                continue
            above, its_height, its_width = boxes[source]
            between = index - order.index(source)
            if between == 1:
                _arrow(axes, (_MIDDLE, above + its_height), (_MIDDLE, top))
                continue
            start = (_MIDDLE - its_width / 2, above + its_height / 2)
            end = (_MIDDLE - width / 2, top + height / 2)
            _around(axes, start, end, 0.12 + 0.2 * (between - 1))


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.annotate("", xy=end, xytext=start, arrowprops={"arrowstyle": "-|>", "color": MUTED, "shrinkA": 1, "shrinkB": 1})


def _around(axes: Axes, start: tuple[float, float], end: tuple[float, float], bulge: float) -> None:
    """Out to the left, down, and back."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    left = max(0.05, min(start[0], end[0]) - bulge - 0.25)
    points = [start, (left, start[1]), (left, end[1]), (end[0] - 0.03, end[1])]
    path = Path(points, [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO])
    axes.add_patch(FancyArrowPatch(path=path, arrowstyle="-|>", mutation_scale=10, color=MUTED, joinstyle="round"))
