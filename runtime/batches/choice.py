"""One text of a request, and what a step brings to it."""

from __future__ import annotations

from typing import Any, NamedTuple

from ...errors import FovealError
from ..generation.continuation import Continuation, FinishReason
from ..generation.request import Request
from ..guides.guide import Guide
from ..logprobs import TokenLogprobs
from ..scoring import PromptScorer
from ..snapshots import Snapshot
from ..speculation.drafting import Drafts, Speculation


class Choice:
    """One text of a request.

    Attributes:
        owner: whose it is, as told by who asked for it.
        index: which of the request's texts.
        continuation: its tokens.
        scorer: has the prompt's log probabilities, if the settings ask for them, once a token was drawn.
        keeps_state: whether its state is wanted at the end; its last token is appended then, if there is room.
        snapshot: of its state, after such an end; None if no memory was left for it.
        start: position of its first new token, once there are logits for it.
        last: what its end is told with, once its state is taken; None: it goes on, or needs no state.
        fired: for every token that was drawn, the stages that fired in the step that gave its logits.
        drafts: what guesses its tokens, once there are logits for the first; None: nothing does.
    """

    def __init__(self, owner: Any, index: int, request: Request, keeps_state: bool, guide: Guide | None = None) -> None:
        self.owner, self.index, self.keeps_state = owner, index, keeps_state
        self.continuation = Continuation(request.choice(index), guide)
        self.scorer: PromptScorer | None = None
        self.snapshot: Snapshot | None = None
        self.start: int | None = None
        self.last: Drawn | None = None
        self.fired: list[tuple[str, ...]] = []
        self.drafts: Drafts | None = None
        if request.drafting is not None:
            self.continuation.speculation = Speculation()

    @property
    def is_over(self) -> bool:
        """Whether it draws no more; its state may still have to be taken."""
        return self.continuation.finish_reason is not None

    def close(self) -> None:
        """Let go of what computes beside."""
        self.continuation.close()
        if self.drafts is not None:
            self.drafts.drafter.close()

    def given_out(self, count: int, text: str) -> list[Drawn]:
        """What is new of it after so many tokens: one for each token, but at least one; the last has the text and the end."""
        going, start = self.continuation, self.start or 0
        scores = going.sampler.logprobs
        new = [
            Drawn(self, "", token, scores[place] if scores else None, start + place, self.fired[place])
            for place, token in enumerate(going.ids[count:], count)
        ]
        *found, last = new or [Drawn(self)]
        return [*found, last._replace(text=text, finish_reason=going.finish_reason)]


class Drawn(NamedTuple):
    """What a step brought to a choice.

    Attributes:
        choice: whose; None: the step failed for all, and what it did not append is there for the next.
        text: that became certain.
        token: the id that was drawn, if it is given out.
        logprobs: of the token, if asked for.
        position: of the token in its sequence; -1 without one.
        fired: the stages that fired for the token before it, whose step gave the logits.
        finish_reason: why it ended; None: it goes on, or ended with an error.
        error: it ended with.
    """

    choice: Choice | None
    text: str = ""
    token: int | None = None
    logprobs: TokenLogprobs | None = None
    position: int = -1
    fired: tuple[str, ...] = ()
    finish_reason: FinishReason | None = None
    error: FovealError | None = None

    @property
    def is_last(self) -> bool:
        """Whether nothing comes after it."""
        return self.choice is not None and (self.finish_reason is not None or self.error is not None)
