"""Tokens after one prompt: how each is chosen, what text they are, and when they end."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from ..guides.guide import Guide
from ..logprobs import TokenLogprobs
from ..sampling import Sampler
from ..speculation.drafting import Speculation
from ..text import TextStream
from .end_watch import EndWatch, Mark
from .request import Request

FinishReason = Literal["length", "stop", "end", "capacity", "complete", "deadline", "cancelled"]
"""Why a generation ended: `max_new_tokens`, a stop string, an end token or rule, a full context, a constraint after which
nothing may follow, `max_seconds`, or whoever asked for it wants no more."""


class Continuation:
    """Chooses the tokens of one sequence and says when they end; whoever has its state appends them.

    What may be the beginning of an end that is not given out is held back until it is known: then `ids` grow by several.

    Args:
        request: what to continue.
        guide: at the beginning of the text; None: opened, if the request has a constraint.

    Attributes:
        ids: of the new tokens so far, of those that are given out.
        finish_reason: None as long as more may come.
        end_rule: the name of the rule that ended it; None: another end.
        is_complete: whether the constraint allowed no token any more.
        leaves_out_last: whether the token drawn last is not given out, and not to be appended: an end token, say.
        speculation: what drafts came to, if there are any.
        withheld: tokens before that one that are not given out either, though they were appended: the mark's that ended it.
    """

    def __init__(self, request: Request, guide: Guide | None = None) -> None:
        self.request = request
        self.ids: list[int] = []
        self.finish_reason: FinishReason | None = None
        self.end_rule: str | None = None
        self.is_complete = False
        self.leaves_out_last, self.withheld = False, 0
        self.speculation: Speculation | None = None
        self.sampler = Sampler(request.params, request.end_ids)
        self._guide = request.guide() if guide is None and request.guide is not None else guide
        self._stream = None if request.tokenizer is None else TextStream(request.tokenizer, request.params.stop)
        self._held: list[int] = []
        self._watch: EndWatch | None = None

    @property
    def logprobs(self) -> list[TokenLogprobs]:
        """Of the new tokens, if the settings ask for them."""
        return self.sampler.logprobs[: len(self.ids)]

    @property
    def left(self) -> int:
        """Tokens that may still be drawn."""
        return self.request.params.max_new_tokens - len(self.ids) - len(self._held)

    def draw(self, logits: npt.NDArray[np.float32], seen: npt.NDArray[np.int64]) -> tuple[int | None, str]:
        """Choose a token and go on by it.

        Args:
            logits: after the last token, float32 `[V]`.
            seen: all ids so far, the prompt's too.

        Returns:
            The token that comes next in the sequence, None where none does, as behind an end token; and the text that is
            certain now.

        Raises:
            InputError: as `Sampler.sample`.
        """
        token = self.choose(logits, seen)
        if token is None:
            return None, self.finish("complete")
        text = self.take(token)
        return (None if self.leaves_out_last else token), text

    def choose(self, logits: npt.NDArray[np.float32], seen: npt.NDArray[np.int64]) -> int | None:
        """The next token; None: the constraint's text is whole, and nothing may follow. `seen` as of `draw`."""
        if self._watch is None and self.request.end_rules:
            self._watch = EndWatch(self.request.end_rules, seen)
        if self._guide is None:
            return self.sampler.sample(logits, seen)
        allowed = self._guide.allowed()
        self.is_complete = not allowed.any()
        return None if self.is_complete else self.sampler.sample(logits, seen, allowed)

    def take(self, token: int) -> str:
        """Go on by a token, chosen here or on a device; returns the text that is certain now."""
        params, drawn = self.request.params, len(self.ids) + len(self._held) + 1
        if token in self.request.end_ids:
            text = self.finish("end")
            self._leave_out(1)
            return text
        mark = None if self._watch is None else self._watch.take(token)
        self._held.append(token)
        if mark is not None and drawn >= params.min_tokens:
            return self._end_with(mark)
        pending = 0 if self._watch is None or drawn >= params.max_new_tokens else self._watch.pending
        text = self._give_out(len(self._held) - pending)
        if self._stream is not None and self._stream.stopped:
            return text + self.finish("stop")
        if drawn >= params.max_new_tokens:
            return text + self.finish("length")
        if self.request.is_late:
            return text + self.finish("deadline")
        if self._guide is not None:
            self._guide.take(token)
        return text

    def finish(self, reason: FinishReason) -> str:
        """End it, unless it has ended; returns the text that was held back. A stop string in it is the reason then."""
        if self.finish_reason is not None:
            return ""
        text = self._give_out(len(self._held))
        if self._stream is not None:
            text += self._stream.finish()
        self.finish_reason = "stop" if self._stream is not None and self._stream.stopped else reason
        self._leave_out(len(self._held))
        self.close()
        return text

    def _give_out(self, count: int) -> str:
        """The oldest so many of those that are held back, but none behind a stop string; returns the text that is certain."""
        text = ""
        while count and not (self._stream is not None and self._stream.stopped):
            token, count = self._held.pop(0), count - 1
            self.ids.append(token)
            if self._stream is not None:
                text += self._stream.push(token, may_stop=len(self.ids) >= self.request.params.min_tokens)
        return text

    def _end_with(self, mark: Mark) -> str:
        """By a rule; of its mark, what stands in the prompt is there already."""
        kept = len(self._held) if mark.rule.gives_out else max(len(self._held) - mark.length, 0)
        text = self._give_out(kept)
        left, self._held = self._held, []
        text += self.finish("end")
        self.end_rule = mark.rule.name if self.finish_reason == "end" else None
        self._leave_out(len(left))
        return text

    def _leave_out(self, count: int) -> None:
        """Of the tokens drawn last; all but the very last were to be appended."""
        self.leaves_out_last, self.withheld = count > 0, max(count - 1, 0)
        del self.sampler.logprobs[len(self.ids) :]

    def forked_guide(self) -> Guide | None:
        """Another guide at the same place, for another text of the prompt; None without a constraint."""
        return None if self._guide is None else self._guide.fork()

    def close(self) -> None:
        """Let go of what computes beside."""
        if self._guide is not None:
            self._guide.close()
