"""How pictures look: one palette for light and dark, one size, one font.

Pictures are drawn in the light colours. In the SVG each of them becomes a CSS variable (`svg.py`), which the page, or the
picture itself where it stands alone, sets for light and for dark.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from ...errors import BackendUnavailable, install

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

LIGHT = {
    "ground": "#f4f5f7",
    "panel": "#ffffff",
    "ink": "#14171c",
    "muted": "#59606c",
    "line": "#dde1e7",
    "edge": "#868e9a",
    "scale-0": "#3b82c4",
    "scale-1": "#00896a",
    "scale-2": "#d1551a",
    "scale-3": "#a6468e",
    "scale-4": "#8a6d00",
    "scale-5": "#30343b",
}
"""Scales go from fine to coarse: Okabe and Ito's hues, which colour-blind people tell apart, darkened or lightened to a
contrast of 3:1 with the ground. They are those of the page of `foveal serve`."""
DARK = {
    "ground": "#0e1014",
    "panel": "#16191f",
    "ink": "#e7eaef",
    "muted": "#a0a8b4",
    "line": "#2a2f38",
    "edge": "#6b7482",
    "scale-0": "#5ba7e8",
    "scale-1": "#35c29e",
    "scale-2": "#f0875a",
    "scale-3": "#d98bc4",
    "scale-4": "#dcc04a",
    "scale-5": "#c9ced6",
}
INK, MUTED, LINE, EDGE, PANEL = (LIGHT[name] for name in ("ink", "muted", "line", "edge", "panel"))
WIDTH_INCHES = 4.2
"""403 CSS pixels: text of 9 points is readable on a phone of 390, and not too large in a column of a desktop's page."""
_SETTINGS: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": EDGE,
    "axes.grid": True,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "font.family": ["DejaVu Sans"],
    "font.size": 9,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "legend.handlelength": 1.1,
    "legend.handleheight": 0.9,
    "text.color": INK,
    "xtick.color": EDGE,
    "xtick.labelcolor": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.color": EDGE,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 8.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "foveal",
    "savefig.bbox": None,
}


def scale_colour(index: int) -> str:
    """Of the finest scale (0), the next, and so on; also of things that are merely told apart."""
    return LIGHT[f"scale-{index % 6}"]


def colours_by_stride(strides: dict[str, float]) -> dict[str, str]:
    """Stages of one rate have one colour, the finest the first."""
    rates = sorted(set(strides.values()))
    return {name: scale_colour(rates.index(stride)) for name, stride in strides.items()}


def require_matplotlib() -> None:
    """Raise BackendUnavailable where matplotlib is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise BackendUnavailable(f"a report's pictures need matplotlib: {install('report')}") from error


def thousands(axis: Axis) -> None:
    """Write the numbers of an axis as `1,000`."""
    axis.set_major_formatter("{x:,.0f}")


def styled() -> AbstractContextManager[None]:
    """The style for what is drawn, and for what is written, within the block."""
    import matplotlib

    context: AbstractContextManager[None] = matplotlib.rc_context(_SETTINGS)
    return context


@contextmanager
def new_figure(height_inches: float) -> Iterator[tuple[Figure, Axes]]:
    """A figure and its axes; what is drawn within the block has the style."""
    from matplotlib.figure import Figure

    with styled():
        figure = Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained")
        yield figure, figure.subplots()
