"""The parts of a page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Table:
    """Rows of cells under a header; the first column names the rows, the others are figures unless `texts` has their index."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Picture:
    """A picture that is drawn when it is written, and what it shows in words."""

    name: str
    title: str
    description: str
    draw: Callable[[], Figure]

    def svg(self) -> str:
        """As an element of a page."""
        from ..pictures.svg import to_svg

        return to_svg(self.draw(), self.name, self.title, self.description)


@dataclass(frozen=True)
class Section:
    """A heading, what to see below it, pictures, their figures in tables, and what gives them again.

    Attributes:
        name: unique in the page; links lead to it.
        lead: paragraphs.
        missing: what is not there, why, and how to get it.
        shown: a table that is always open; `tables` are folded under the pictures.
    """

    name: str
    title: str
    lead: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    shown: Sequence[Table] = ()
    tables: Sequence[Table] = ()
    missing: str | None = None
    commands: Sequence[str] = ()
