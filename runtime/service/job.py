"""A request on its way through a service."""

from __future__ import annotations

import time

from ..batches.choice import Choice, Drawn
from ..batches.waiting import Prompt
from ..generation.request import Request
from ..snapshots import Snapshot
from .stream import Stream


class Job:
    """A request, what is told of it, and how far it is.

    Args:
        stream: where its events go.
        request: what to continue.
        snapshot: what it goes on from; None: it begins a sequence.
        keeps_state: whether the state of its first text is stored at the end.

    Attributes:
        prompt: is handed to the batch; None once it has been.
        choices: its texts; none once all were told their end.
        last_told: when each text had its last token, by index.
        live: texts that more may come of.
        untold: texts that have not been told their end, though there may be one.
        state: to be stored when all texts have ended.

    Raises: as `Prompt`.
    """

    def __init__(self, stream: Stream, request: Request, snapshot: Snapshot | None, keeps_state: bool) -> None:
        self.stream, self.begun = stream, time.monotonic()
        self.prompt: Prompt | None = Prompt(request, self, stream.n, snapshot, keeps_state)
        self.choices: list[Choice] = list(self.prompt.choices)
        self.last_told: dict[int, float] = {}
        self.live = self.untold = stream.n
        self.state: Snapshot | None = None
        self._is_spoilt = False

    def give_prompt(self) -> Prompt:
        """For the batch; from now on it alone holds what the request goes on from."""
        prompt, self.prompt = self.prompt, None
        assert prompt is not None
        return prompt

    def spoil(self) -> None:
        """Its state is not wanted any more: it was cancelled, or a text of it failed."""
        self.state, self._is_spoilt = None, True

    def note_last(self, drawn: Drawn, choice: Choice) -> None:
        """A text has ended."""
        self.live -= 1
        snapshot, choice.snapshot = choice.snapshot, None
        if drawn.error is not None:
            self.spoil()
        elif snapshot is not None and not self._is_spoilt:
            self.state = snapshot

    def close(self) -> None:
        """Let go of all that it holds, as who reads its events may hold it for long."""
        if self.prompt is not None:
            self.prompt.close()
        self.choices, self.state, self.prompt = [], None, None
