"""What is written down of a request: never what it said, or was told."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Record:
    """One request.

    Attributes:
        id: that the client gave, or that was made up.
        method, path: as asked; the path of a route that takes names is the route's.
        status: of the answer; 499: the client had gone.
        model: that it asked for, if there is one.
        prompt_tokens, new_tokens: counts.
        first_token_seconds: from the request to the first token that was drawn.
        finish_reason: why its texts ended.
        session: a hash of its session's name.
        owner: by which the sessions of its client are told apart.
        error: a word for what went wrong.
    """

    id: str
    method: str
    path: str
    begun: float = field(default_factory=time.monotonic)
    status: int = 0
    model: str | None = None
    prompt_tokens: int | None = None
    new_tokens: int | None = None
    first_token_seconds: float | None = None
    finish_reason: str | None = None
    session: str | None = None
    owner: str = "open"
    error: str | None = None

    def note_first_token(self) -> None:
        """It came now."""
        self.first_token_seconds = time.monotonic() - self.begun

    def line(self) -> dict[str, Any]:
        """What a log says of it."""
        found = {
            "event": "request",
            "request": self.id,
            "method": self.method,
            "path": self.path,
            "model": self.model,
            "status": self.status,
            "prompt_tokens": self.prompt_tokens,
            "new_tokens": self.new_tokens,
            "first_token_s": _rounded(self.first_token_seconds),
            "seconds": _rounded(time.monotonic() - self.begun),
            "finish_reason": self.finish_reason,
            "session": self.session,
            "error": self.error,
        }
        return {name: value for name, value in found.items() if value is not None}


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)
