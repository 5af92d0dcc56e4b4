"""What a generation tells of itself while it goes on: for traces, and for measurements of one's own."""

from __future__ import annotations

from collections.abc import Sequence

from ...contract import StageSpec
from ..session import Session


class GenerationObserver:
    """Does nothing; override what you want to know, and give it to `Model.generate` or `generate_ids` as `observer`.

    Calls come from the thread that generates, right after what they tell of; what they take is no part of the times that are
    told, but of the generation. Times are nanoseconds of `time.perf_counter_ns`. The text is the same. As with
    `Session.observer` each stage is waited for: none runs beside another, and no recorded step of a device is launched.
    """

    def opened(self, session: Session, drafting: str | None) -> None:
        """A session was opened, at position 0: the text's, or that of the drafting model whose bundle has this name."""

    def fired(self, session: Session, stage: StageSpec, firings: int, began_ns: int, ended_ns: int) -> None:
        """A stage's engine ran so many firings in one call. A stage may run earlier firings again after a rewind."""

    def called(self, session: Session, position: int, tokens: int, began_ns: int, ended_ns: int) -> None:
        """The tokens `[position, position + tokens)` were appended in one call, behind all that it `fired`."""

    def rewound(self, session: Session, position: int) -> None:
        """The tokens from a position on were taken back."""

    def drafted(self, tokens: Sequence[int], position: int, began_ns: int, ended_ns: int) -> None:
        """These tokens, maybe none, were proposed for the places from a position on; they are checked in the next call."""

    def chose(self, token: int | None, position: int, began_ns: int, ended_ns: int) -> None:
        """The token for a place was drawn from the logits; None: the constraint allows none. A device that draws itself
        (`Session.draw`) tells of the first alone."""
