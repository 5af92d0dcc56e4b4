"""Draw where a model fires in a text: the picture in docs/training.md.

python -m foveal.bench.boundaries OUT.svg BUNDLE TEXT [--offset CHARACTERS] [--characters N] [--before N]

Each span has a ground of its own and ends with a bar. Characters of the text before it are read, and not drawn.
"""

from __future__ import annotations

import argparse
import bisect
import itertools
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import matplotlib
import numpy as np

from ..errors import ConfigError
from ..models.text import read_texts
from ..runtime import load

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LINE, _WIDTH, _HEIGHT = 84, 8.4, 0.24
"""Characters of a line, and inches of it."""
_POINTS, _MONOSPACED = 72, 0.602
"""Of an inch, and how wide a character of usual monospaced fonts is for its height."""
_GROUNDS = ("#dbe9f6", "#f6ead2")
_BAR = "#c0392b"


def ends_of_spans(bundle: Path, text: str, before: int) -> list[int]:
    """After how many characters of a text, but the first `before`, the model's outermost spans end.

    Raises:
        ConfigError: a model whose firings nothing decides but a stride, or a text that is cut within a character.
    """
    model = load(bundle, threads=1)
    if not any(entry.spec.clock for entry in model.manifest.stages):
        raise ConfigError(f"{bundle} fires by strides alone; give a model whose schedule the data decides")
    ids = [model.prompt_ids(part) for part in (text[:before], text[before:])]
    ends = _characters(text[before:], ids[1])
    with model.session(capacity=len(ids[0]) + len(ids[1])) as session:
        session.advance(np.array([[*ids[0], *ids[1]]], np.int64), last_only=True)
        decided = next(iter(session.schedule.values()))
    places = decided.ends - len(ids[0])
    return sorted({ends[place] for place in places if place >= 0})


def _characters(text: str, ids: Sequence[int]) -> list[int]:
    """Of the token of each byte, how many characters of the text are there with it, one that has begun included."""
    ends = [place for place, character in enumerate(text, 1) for _ in character.encode()]
    if len(ids) != len(ends):
        raise ConfigError(f"the text has {len(ends)} bytes and {len(ids)} tokens; only models of bytes are drawn")
    return ends


class Piece(NamedTuple):
    """As much of a span as is on one line; the line's number, the first character's place in it, and whether the span ends."""

    row: int
    column: int
    text: str
    span: int
    ends: bool


def pieces_of(text: str, ends: Sequence[int]) -> Iterator[Piece]:
    """What to draw of a text whose spans end after so many characters."""
    for row, (start, line) in enumerate(_lines(text)):
        cuts = [0, *(end - start for end in ends if start < end < start + len(line)), len(line)]
        for left, right in itertools.pairwise(cuts):
            span = bisect.bisect_right(ends, start + left)
            yield Piece(row, left, line[left:right], span, start + right in ends)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines to draw, each with the number of characters before it; every character is in one."""
    start = 0
    for line in textwrap.wrap(text, _LINE, drop_whitespace=False, replace_whitespace=False, break_on_hyphens=False):
        yield start, line
        start += len(line)


def draw(out: Path, text: str, ends: Sequence[int]) -> None:
    """Write an SVG, the same bytes for the same spans."""
    from matplotlib.figure import Figure

    pieces = list(pieces_of(text, ends))
    rows = 1 + max(piece.row for piece in pieces)
    figure = Figure(figsize=(_WIDTH, _HEIGHT * rows + 0.1))
    axes = figure.add_axes((0.01, 0.02, 0.98, 0.96))
    axes.set(xlim=(0, _LINE), ylim=(rows, 0))
    axes.axis("off")
    for piece in pieces:
        _draw_piece(axes, piece)
    with matplotlib.rc_context({"svg.hashsalt": "foveal", "svg.fonttype": "none"}):
        figure.savefig(out, metadata={"Date": None})


def _draw_piece(axes: Axes, piece: Piece) -> None:
    from matplotlib.patches import Rectangle

    size = _WIDTH * 0.98 / _LINE * _POINTS / _MONOSPACED
    right, top = piece.column + len(piece.text), piece.row + 0.08
    ground = _GROUNDS[piece.span % len(_GROUNDS)]
    axes.add_patch(Rectangle((piece.column, top), len(piece.text), 0.84, facecolor=ground, linewidth=0))
    if piece.ends:
        axes.add_patch(Rectangle((right - 0.1, top), 0.2, 0.84, facecolor=_BAR, linewidth=0))
    shown = piece.text.lstrip(" ")  # SVG drops spaces in front
    place = right - len(shown), piece.row + 0.5
    axes.text(*place, shown.replace("\n", "¶"), family="monospace", fontsize=size, va="center_baseline")


def main() -> None:
    """As the module says."""
    parser = argparse.ArgumentParser(prog="python -m foveal.bench.boundaries")
    parser.add_argument("out", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--offset", type=int, default=0)
    parser.add_argument("--characters", type=int, default=700)
    parser.add_argument("--before", type=int, default=200)
    given = parser.parse_args()
    before = min(given.before, given.offset)
    text = "".join(read_texts([given.text]))[given.offset - before : given.offset + given.characters]
    draw(given.out, text[before:], ends_of_spans(given.bundle, text, before))


if __name__ == "__main__":
    main()
