"""A request on its way through a service."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from ..batches.continuations import Choice
from ..generation.request import Request
from ..snapshots import Snapshot
from .stream import Stream


@dataclass(eq=False)
class Job:
    """A request, what is told of it, and how far it is.

    Attributes:
        stream: where its events go.
        request: what to continue.
        keeps_state: whether the state of its first text is stored at the end.
        snapshot: what it goes on from, until it has begun.
        choices: its texts, once it has begun.
        last_told: when each text had its last token, by index.
        live: texts that more may come of; `untold`: how many have not been told their end.
    """

    stream: Stream
    request: Request
    keeps_state: bool
    snapshot: Snapshot | None = None
    choices: list[Choice] = field(default_factory=list)
    last_told: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.begun = time.monotonic()
        self.live, self.untold = set(range(self.stream.n)), self.stream.n
