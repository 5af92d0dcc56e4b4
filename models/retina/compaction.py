"""How a retina model compacts its past, as data and arithmetic: which rows there are, and who sees them.

Everything happens by pages of P tokens. A token of page i sees every token of pages i-1 and i; further back it sees rows that
stand for several tokens each: 4 of them at first, then 16, then 64. A page's age, as seen from page i, is 0 for page i-1.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from ...errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

FINE_PAGES = 3
"""Pages whose fine rows are kept. Two are seen; the third lets a page that has ended be taken back, and with it one token more.

From token m of page j, the oldest page that is wholly there is page j-2, which page j-1 needs: all can be taken back to the
beginning of page j-1, which is P + m tokens, and m is at least 1.
"""


@dataclass(frozen=True)
class Periphery:
    """The past at one pooling: rows for pages of an age from `newest` to `oldest`.

    Attributes:
        pooling: tokens that a row stands for.
        rows: of a page.
        oldest: None: without end.
    """

    pooling: int
    rows: int
    newest: int
    oldest: int | None

    @property
    def pages(self) -> int | None:
        """Pages whose rows are kept; None: all.

        That is ages 0 to `oldest`, for a page is pooled before it is seen, and one more for a page that may be taken back.
        """
        return None if self.oldest is None else self.oldest + 2

    def sees(self, ages: Tensor) -> Tensor:
        """Whether pages of such ages are seen at this pooling."""
        new_enough = ages >= self.newest
        return new_enough if self.oldest is None else new_enough & (ages <= self.oldest)


class Compaction(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes of the fovea and the periphery of a retina model, in tokens.

    Attributes:
        page: when a page begins, the one before it is pooled.
        poolings: tokens per row, newest rows first; each divides the page.
        spans: tokens that each pooling but the last covers, whole pages; the last covers all the rest.

    Raises:
        ConfigError: sizes that do not divide each other.
    """

    page: int = 64
    poolings: tuple[int, ...] = (4, 16, 64)
    spans: tuple[int, ...] = (128, 256)

    def __post_init__(self) -> None:
        growing = all(finer < coarser for finer, coarser in itertools.pairwise((1, *self.poolings)))
        if self.page < 1 or not self.poolings or not growing or any(self.page % pooling for pooling in self.poolings):
            raise ConfigError(
                f"poolings must grow from 2 or more and each divide the page, got poolings {list(self.poolings)} "
                f"and a page of {self.page}; give for instance poolings [4, 16, 64] and a page of 64"
            )
        if len(self.spans) != len(self.poolings) - 1 or any(span < self.page or span % self.page for span in self.spans):
            raise ConfigError(
                f"spans must be whole pages of {self.page} tokens, one for each of {len(self.poolings)} poolings but the last, "
                f"got {list(self.spans)}"
            )

    @property
    def peripheries(self) -> tuple[Periphery, ...]:
        """The past at each pooling, newest first."""
        found, newest = [], 1
        for pooling, span in zip(self.poolings, (*self.spans, None), strict=True):
            oldest = None if span is None else newest + span // self.page - 1
            found.append(Periphery(pooling, self.page // pooling, newest, oldest))
            newest = newest if oldest is None else oldest + 1
        return tuple(found)

    @property
    def rewinds(self) -> int:
        """The tokens that can be taken back wherever one stands."""
        return (FINE_PAGES - 2) * self.page + 1

    def kept_rows(self, tokens: int) -> int:
        """Rows of keys that each layer has room for in a session of so many tokens; a vanilla cache has `tokens` of them."""
        pages = -(-tokens // self.page)
        return FINE_PAGES * self.page + sum(
            (pages if past.pages is None else past.pages) * past.rows for past in self.peripheries
        )
