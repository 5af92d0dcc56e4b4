"""What is answered, as OpenAI's API writes it. `foveal` is there only for those who ask for it."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

Finish = Literal["stop", "length"]


class CachedTokens(Struct):
    """Of a prompt."""

    cached_tokens: int


class Usage(Struct):
    """Tokens that a request took; of the prompt's, those that were not computed but found in the store."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens


class TokenReport(Struct):
    """How a token came: where it stands, the text that it made certain, which stages fired for it, and how long it took."""

    position: int
    token: int
    text: str
    fired: tuple[str, ...]
    seconds: float


class SessionReport(Struct):
    """Where a session stands."""

    id: str
    position: int | None


class DraftReport(Struct):
    """What drafts came to in a text: calls that appended its tokens, tokens that were checked, and those that came."""

    calls: int
    drafted: int
    accepted: int


class Report(Struct, omit_defaults=True):
    """What OpenAI's API has no place for: of each token, and at the end of a text."""

    tokens: list[TokenReport] | UnsetType = UNSET
    finish_reason: str | UnsetType = UNSET
    session: SessionReport | UnsetType | None = UNSET
    restored_tokens: int | UnsetType = UNSET
    drafts: DraftReport | UnsetType = UNSET


class Logprobs(Struct):
    """Of the tokens of a completion."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(Struct):
    """A text, or the next piece of one."""

    index: int
    text: str
    logprobs: Logprobs | None
    finish_reason: Finish | None
    foveal: Report | UnsetType = UNSET


class TopLogprob(Struct):
    """A token that might have come."""

    token: str
    logprob: float
    bytes: list[int] | None


class ChatLogprob(Struct):
    """A token that came."""

    token: str
    logprob: float
    bytes: list[int] | None
    top_logprobs: list[TopLogprob]


class ChatLogprobs(Struct):
    """Of the tokens of a chat's message."""

    content: list[ChatLogprob]
    refusal: None = None


class ChatMessage(Struct):
    """What the model says."""

    content: str
    role: Literal["assistant"] = "assistant"
    refusal: None = None


class ChatDelta(Struct):
    """A piece of what the model says; the first has the role."""

    content: str | UnsetType = UNSET
    role: Literal["assistant"] | UnsetType = UNSET


class ChatChoice(Struct):
    """A message."""

    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: Finish | None
    foveal: Report | UnsetType = UNSET


class ChatChunkChoice(Struct):
    """The next piece of a message."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: Finish | None


Choice = CompletionChoice | ChatChoice | ChatChunkChoice


class Answer(Struct):
    """To a request, whole or the next chunk of it."""

    id: str
    object: str
    created: int
    model: str
    system_fingerprint: str
    choices: list[Choice]
    usage: Usage | UnsetType | None = UNSET
    foveal: Report | UnsetType = UNSET


def usage_of(prompt: int, cached: int, new: int) -> Usage:
    """Of so many tokens."""
    return Usage(prompt, new, prompt + new, CachedTokens(cached))


class ModelEntry(Struct):
    """A model that is served."""

    id: str
    created: int
    object: str = "model"
    owned_by: str = "foveal"


class ModelList(Struct):
    """All that are."""

    data: list[ModelEntry]
    object: str = "list"


class SessionEntry(Struct, omit_defaults=True):
    """A sequence that is kept between requests."""

    id: str
    model: str
    position: int | None
    deleted: bool = False
