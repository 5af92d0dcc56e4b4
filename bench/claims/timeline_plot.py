"""The picture of claim 3: which engine runs when."""

from __future__ import annotations

from pathlib import Path

from ...calibration.plotting import new_axes, save
from .result import FiringModel

_BAR = 0.7


def draw_timeline(out: Path, model: FiringModel) -> None:
    """One lane per stage, in the order of dataflow, and a bar for each call of its engine; grey lines part the tokens.

    Raises:
        BackendUnavailable: matplotlib is not installed.
    """
    figure, axes = new_axes()
    axes.grid(False)
    strides = sorted({stage.stride for stage in model.stages})
    for lane, stage in enumerate(model.stages):
        bars = [(call.begin_us / 1e3, (call.end_us - call.begin_us) / 1e3) for call in model.calls if call.stage == stage.name]
        axes.broken_barh(bars, (lane - _BAR / 2, _BAR), facecolors=f"C{strides.index(stage.stride)}")
    first = {call.token: call.begin_us / 1e3 for call in reversed(model.calls)}
    for ms in first.values():
        axes.axvline(ms, color="grey", linewidth=0.3, zorder=0)
    axes.set_yticks(range(len(model.stages)), [f"{stage.name} (layers: {stage.layers})" for stage in model.stages])
    axes.invert_yaxis()
    tokens = sorted(first)
    axes.set(xlabel=f"decoding tokens {tokens[0]} to {tokens[-1]}, ms", ylabel="stage", title=model.model)
    save(figure, out)
