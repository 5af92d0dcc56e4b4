"""What a service has to do, and what it has done."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ServiceStatistics:
    """As of a moment.

    Attributes:
        slots: texts that decode at once.
        running, reading, waiting: texts with a slot, prompts that are being read, and both that wait for a slot.
        capacity: tokens of a sequence at most.
        steps, tokens: made so far.
        requests, refused: taken so far, and refused as there was no room.
        prompt_tokens, restored_tokens: given so far, and taken from the store instead of being computed.
        fires: firings of every stage so far.
        draft_calls, drafted, accepted: of texts with drafts, calls that appended tokens of theirs, tokens that were drafted and
            checked, and those of them that came.
    """

    slots: int
    running: int
    reading: int
    waiting: int
    capacity: int
    steps: int
    tokens: int
    requests: int
    refused: int
    prompt_tokens: int
    restored_tokens: int
    fires: dict[str, int]
    draft_calls: int
    drafted: int
    accepted: int
