"""Pictures of plans and probes: what they name, and the same bytes for the same figures."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from foveal import BackendUnavailable
from foveal.calibration.pareto_plot import Point, draw_pareto
from foveal.calibration.probe import Distance, Probe
from foveal.calibration.probe_plot import draw_probes


def pareto(out: Path) -> None:
    """Two plans, two precisions."""
    frontier = [Point(0.0, 2.0), Point(0.01, 1.0)]
    draw_pareto(out, frontier, {"fp32": Point(0.0, 2.0), "int8": Point(0.02, 0.8)}, Point(0.009, 1.1), 0.01)


def probes(out: Path) -> None:
    """One probe of two distances."""
    distances = (Distance(first=1, last=1, nats=0.5, half_width=0.1), Distance(first=2, last=2, nats=0.1, half_width=0.1))
    found = Probe(
        bundle="some/where/small",
        hierarchy="1@1",
        precision="int8",
        window=4,
        windows=9,
        threshold=0.05,
        distances=distances,
        settles_at=None,
    )
    draw_probes(out, [found])


@pytest.mark.parametrize(
    ("draw", "labels"),
    [
        (pareto, ("fp32", "int8", "budget, 1.00%", "the plan (measured)", "rise of bits per byte, %", "time per token, ms")),
        (probes, ("small, int8", "0.05 nats", "tokens behind the shuffled half", "rise of the loss, nats per token")),
    ],
)
def test_a_picture_names_what_it_shows(tmp_path: Path, draw: Callable[[Path], None], labels: tuple[str, ...]) -> None:
    """In words that can be searched for; drawn again it is the same file, in a folder that need not be there."""
    for name in ("a", "b"):
        draw(tmp_path / name / "plot.svg")
    first, again = ((tmp_path / name / "plot.svg").read_bytes() for name in ("a", "b"))
    assert first == again
    for label in labels:
        assert f">{label}<" in first.decode()


@pytest.mark.parametrize("draw", [pareto, probes])
def test_the_suffix_says_the_format(tmp_path: Path, draw: Callable[[Path], None]) -> None:
    """A PNG is one."""
    draw(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("draw", [pareto, probes])
def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, draw: Callable[[Path], None]) -> None:
    """The line that installs it."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(BackendUnavailable, match=r"pictures need matplotlib: pip install '\.\[report\]'"):
        draw(tmp_path / "plot.svg")
