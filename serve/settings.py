"""What a server allows."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field, fields

from ..errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """Who may ask, and for how much.

    Attributes:
        tokens: of which requests have to bear one, by `Authorization: Bearer TOKEN`; none: anyone may ask.
        opens_metrics: whether `/metrics` is for all; `/health` and `/ready` always are.
        page: whether there is a page at `/`.
        max_prompt: tokens of a prompt at most; None: as many as a sequence has room for.
        max_output: new tokens of a text at most; None: as many as a sequence has room for.
        max_body: bytes of a request's body at most.
        max_prompts: prompts of one request at most.
        max_texts: texts of one request at most: its prompts times `n`.
        max_stops: stop strings of one request at most, and `max_stop_characters` of each.
        timeout: seconds after which a text ends with what it has.
        body_timeout: seconds within which a body has to arrive.
        stall_timeout: seconds after which a client that reads nothing is given up.
        drafts: whether requests may ask for drafts that the server has not for all: `"ngrams"`, which takes no model.
        session_header: by which requests find the server that has their session, where there are several; None: there is one.

    Raises:
        ConfigError: a limit that is none.
    """

    tokens: Collection[str] = field(default=(), repr=False)
    opens_metrics: bool = True
    page: bool = True
    max_prompt: int | None = None
    max_output: int | None = None
    max_body: int = 4 << 20
    max_prompts: int = 64
    max_texts: int = 64
    max_stops: int = 16
    max_stop_characters: int = 1000
    timeout: float = 600.0
    body_timeout: float = 30.0
    stall_timeout: float = 60.0
    drafts: bool = True
    session_header: str | None = None

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name in ("tokens", "opens_metrics", "page", "drafts", "session_header") or value is None:
                continue
            kinds = (int,) if isinstance(one.default, int | None) else (int, float)
            if isinstance(value, bool) or not isinstance(value, kinds) or not 0 < value < math.inf:
                raise ConfigError(f"{one.name} is {value!r}, expected a number above 0; it limits what a request may ask for")
