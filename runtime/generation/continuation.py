"""Tokens after one prompt: how each is chosen, what text they are, and when they end."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from ..logprobs import TokenLogprobs
from ..sampling import Sampler
from ..text import TextStream
from .request import Request

FinishReason = Literal["length", "stop", "end", "capacity", "complete", "deadline", "cancelled"]
"""Why a generation ended: `max_new_tokens`, a stop string, an end token, a full context, a constraint after which nothing may
follow, `max_seconds`, or whoever asked for it wants no more."""


class Continuation:
    """Chooses the tokens of one sequence and says when they end; whoever has its state appends them.

    Attributes:
        ids: of the new tokens so far.
        finish_reason: None as long as more may come.
        is_complete: whether the constraint allowed no token any more.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.ids: list[int] = []
        self.finish_reason: FinishReason | None = None
        self.is_complete = False
        self.sampler = Sampler(request.params, request.end_ids)
        self._guide = None if request.guide is None else request.guide()
        self._stream = None if request.tokenizer is None else TextStream(request.tokenizer, request.params.stop)

    @property
    def logprobs(self) -> list[TokenLogprobs]:
        """Of the new tokens, if the settings ask for them."""
        return self.sampler.logprobs

    @property
    def last_logprobs(self) -> TokenLogprobs | None:
        """Of the token chosen last."""
        return self.sampler.logprobs[-1] if self.sampler.logprobs else None

    def draw(self, logits: npt.NDArray[np.float32], seen: npt.NDArray[np.int64]) -> tuple[int | None, str]:
        """Choose a token and go on by it.

        Args:
            logits: after the last token, float32 `[V]`.
            seen: all ids so far, the prompt's too.

        Returns:
            The token to append, None once it has ended; and the text that is certain now.

        Raises:
            InputError: as `Sampler.sample`.
        """
        token = self.choose(logits, seen)
        if token is None:
            return None, self.finish("complete")
        text = self.take(token)
        return (token if self.finish_reason is None else None), text

    def choose(self, logits: npt.NDArray[np.float32], seen: npt.NDArray[np.int64]) -> int | None:
        """The next token; None: the constraint's text is whole, and nothing may follow."""
        if self._guide is None:
            return self.sampler.sample(logits, seen)
        allowed = self._guide.allowed()
        self.is_complete = not allowed.any()
        return None if self.is_complete else self.sampler.sample(logits, seen, allowed)

    def take(self, token: int) -> str:
        """Go on by a token, chosen here or on a device; returns the text that is certain now."""
        if token in self.request.end_ids:
            del self.sampler.logprobs[len(self.ids) :]
            return self.finish("end")
        self.ids.append(token)
        count, params = len(self.ids), self.request.params
        text = "" if self._stream is None else self._stream.push(token, may_stop=count >= params.min_tokens)
        if self._stream is not None and self._stream.stopped:
            return text + self.finish("stop")
        if count >= params.max_new_tokens:
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
        text = "" if self._stream is None else self._stream.finish()
        self.finish_reason = "stop" if self._stream is not None and self._stream.stopped else reason
        self.close()
        return text

    def close(self) -> None:
        """Let go of what computes beside."""
        if self._guide is not None:
            self._guide.close()
