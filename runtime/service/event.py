"""What a request is told of each of its tokens."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import FovealError
from ..generation.continuation import FinishReason
from ..logprobs import TokenLogprobs


@dataclass(frozen=True)
class Event:
    """A token, the text that it made certain, and what it took.

    Attributes:
        index: which of the request's texts.
        text: that became certain; may be empty.
        token: its id; None: none is given out, as for an end token.
        logprobs: of the token, if asked for.
        position: of the token in its sequence; -1 without one.
        fired: stages that fired in the step that it comes from, in dataflow order.
        seconds: since the text's last token; of the first, since the request came.
        finish_reason: why the text ended, with its last event; None before.
        error: with which the text ended.
    """

    index: int
    text: str
    token: int | None
    logprobs: TokenLogprobs | None
    position: int
    fired: tuple[str, ...]
    seconds: float
    finish_reason: FinishReason | None
    error: FovealError | None = None

    @property
    def is_last(self) -> bool:
        """Whether nothing comes after it in its text."""
        return self.finish_reason is not None or self.error is not None
