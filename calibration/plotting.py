"""What the pictures share: one look, and the same bytes for the same figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import BackendUnavailable, ConfigError, install
from ..files import require_place


def new_axes() -> tuple[Any, Any]:
    """A matplotlib figure and its axes.

    Raises:
        BackendUnavailable: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BackendUnavailable(f"pictures need matplotlib: {install('report')}") from error
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.grid(alpha=0.3)
    return figure, axes


def require_picture(out: Path) -> None:
    """See before long work that a picture can be drawn into this file.

    Raises:
        BackendUnavailable: matplotlib is not installed.
        ConfigError: the suffix names no format.
        StorageError: the place can't be written to.
    """
    figure, _ = new_axes()
    formats = figure.canvas.get_supported_filetypes()
    if out.suffix.removeprefix(".").lower() not in formats:
        raise ConfigError(
            f'the picture is "{out}", expected a name that ends in .svg, .png or another of {", ".join(sorted(formats))}'
        )
    require_place(out)


def save(figure: Any, out: Path) -> None:
    """Write the picture; its suffix says the format."""
    import matplotlib

    out.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": "foveal", "svg.fonttype": "none"}):
        figure.savefig(out, metadata={"Date": None} if out.suffix == ".svg" else None)
