"""How a text, or the next piece of one, is written for a client: as a completion or as a chat's message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import UNSET, UnsetType

from ..runtime.logprobs import TokenLogprobs
from .answers import (
    ChatChoice,
    ChatChunkChoice,
    ChatDelta,
    ChatLogprob,
    ChatLogprobs,
    ChatMessage,
    Choice,
    CompletionChoice,
    Finish,
    Logprobs,
    Report,
    TopLogprob,
)
from .token_texts import Offsets, TokenTexts

Scored = Sequence["TokenLogprobs | int"]
"""Tokens with their log probabilities; of the first of a prompt, which nothing is before, the id alone."""


class Form(Protocol):
    """Of one request."""

    prefix: str
    """Of ids of answers."""
    whole_object: str
    chunk_object: str

    def whole(self, index: int, text: str, scored: Scored | None, finish: Finish | None, report: Report | UnsetType) -> Choice:
        """A text that is over."""
        ...

    def chunk(self, index: int, text: str, scored: Scored | None, finish: Finish | None) -> Choice:
        """The next piece of a text."""
        ...

    def opening(self, index: int) -> Choice | None:
        """What comes before the first piece; None: nothing."""
        ...


class CompletionForm:
    """Completions: plain text.

    Args:
        texts: of tokens.
    """

    prefix, whole_object, chunk_object = "cmpl-", "text_completion", "text_completion"

    def __init__(self, texts: TokenTexts, offsets: Sequence[Offsets]) -> None:
        self._texts, self._offsets = texts, offsets

    def whole(self, index: int, text: str, scored: Scored | None, finish: Finish | None, report: Report | UnsetType) -> Choice:
        """A text that is over."""
        return CompletionChoice(index, text, self._logprobs(index, scored), finish, report)

    def chunk(self, index: int, text: str, scored: Scored | None, finish: Finish | None) -> Choice:
        """The next piece of a text."""
        return CompletionChoice(index, text, self._logprobs(index, scored), finish)

    def opening(self, index: int) -> Choice | None:
        """Nothing."""
        return None

    def _logprobs(self, index: int, scored: Scored | None) -> Logprobs | None:
        if scored is None:
            return None
        found = Logprobs([], [], [], [])
        for one in scored:
            token = one if isinstance(one, int) else one.token
            found.tokens.append(self._texts.text(token))
            found.text_offset.append(self._offsets[index].next(token))
            found.token_logprobs.append(None if isinstance(one, int) else one.logprob)
            found.top_logprobs.append(None if isinstance(one, int) else self._top(one))
        return found

    def _top(self, one: TokenLogprobs) -> dict[str, float]:
        """The likeliest, and the token itself; of several with the same text the likeliest keeps it."""
        found: dict[str, float] = {}
        for token, logprob in (*one.top, (one.token, one.logprob)):
            text = self._texts.text(token)
            if text in found and found[text] != logprob:
                text = f"token_id:{token}"
            found[text] = logprob
        return found


class ChatForm:
    """Messages of a chat.

    Args:
        texts: of tokens.
    """

    prefix, whole_object, chunk_object = "chatcmpl-", "chat.completion", "chat.completion.chunk"

    def __init__(self, texts: TokenTexts) -> None:
        self._texts = texts

    def whole(self, index: int, text: str, scored: Scored | None, finish: Finish | None, report: Report | UnsetType) -> Choice:
        """A message that is over."""
        return ChatChoice(index, ChatMessage(text), self._logprobs(scored), finish, report)

    def chunk(self, index: int, text: str, scored: Scored | None, finish: Finish | None) -> Choice:
        """The next piece of a message."""
        delta = ChatDelta(content=text or UNSET) if finish else ChatDelta(content=text)
        return ChatChunkChoice(index, delta, self._logprobs(scored), finish)

    def opening(self, index: int) -> Choice | None:
        """Whose message it is."""
        return ChatChunkChoice(index, ChatDelta("", "assistant"), None, None)

    def _logprobs(self, scored: Scored | None) -> ChatLogprobs | None:
        return None if scored is None else ChatLogprobs([self._one(one) for one in scored if not isinstance(one, int)])

    def _one(self, one: TokenLogprobs) -> ChatLogprob:
        texts = self._texts
        top = [TopLogprob(texts.text(token), logprob, texts.utf8(token)) for token, logprob in one.top]
        return ChatLogprob(texts.text(one.token), one.logprob, texts.utf8(one.token), top)
