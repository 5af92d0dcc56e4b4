"""What waits for a slot of a batch: a prompt with all its texts, or one more text after a prompt that was read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..generation.request import Request
from ..generation.settings import check_count
from ..scoring import PromptScorer
from ..snapshots import Snapshot
from .batch import Batch
from .choice import Choice
from .sequence import Sequence

Logits = npt.NDArray[np.float32]


class Prompt:
    """To be read, after a snapshot or by itself, for all texts of a request.

    Making one opens a guide for its texts, which takes as long as a grammar is large: do so beside the thread that steps.

    Args:
        request: what to continue.
        owner: handed back with what is drawn.
        count: how many texts; each has a seed of its own.
        snapshot: of a sequence that the prompt comes after, which then may be empty; None: it begins one.
        keeps_state: whether the state of the first text is wanted at its end.

    Attributes:
        choices: its texts, that have not begun.

    Raises:
        InputError, BackendUnavailable: a constraint that can't be followed; InputError for too many texts.
    """

    def __init__(
        self,
        request: Request,
        owner: Any = None,
        count: int = 1,
        snapshot: Snapshot | None = None,
        keeps_state: bool = False,
    ) -> None:
        check_count(count)
        self.request, self.snapshot = request, snapshot
        self.choices: list[Choice] = []
        try:
            for index in range(count):
                guide = self.choices[0].continuation.forked_guide() if index else None
                self.choices.append(Choice(owner, index, request, keeps_state and not index, guide))
        except BaseException:
            self.close()
            raise
        if request.params.prompt_logprobs is not None:
            scorer = PromptScorer(request.ids, request.params.prompt_logprobs)
            for choice in self.choices:
                choice.scorer = scorer

    @property
    def live(self) -> list[Choice]:
        """Those that are still wanted."""
        return [choice for choice in self.choices if not choice.is_over]

    def begin(self, batch: Batch) -> Sequence:
        """Let it have a slot; steps of the batch read it.

        Raises: as `Batch.join`, `Batch.restore` and `Batch.extend`; no slot is taken then.
        """
        watch = None if self.choices[0].scorer is None else self.choices[0].scorer.take
        if self.snapshot is None:
            return batch.join(self.request.ids, watch=watch)
        sequence = batch.restore(self.snapshot)
        try:
            ids = self.request.ids
            if not len(ids):  # go on from what is there: its last token gives the logits again
                ids = batch.tokens(sequence)[-1:].tolist()
                batch.rewind(sequence, 1)
            batch.extend(sequence, ids, watch=watch)
        except BaseException:
            batch.leave(sequence)
            raise
        return sequence

    def close(self) -> None:
        """Let go of what its texts compute beside."""
        for choice in self.choices:
            choice.continuation.close()


@dataclass(frozen=True, eq=False)
class Branch:
    """Another text after a prompt that was read when no slot was free for it.

    Attributes:
        choice: the text.
        snapshot: after the prompt.
        logits: after its last token, float32 `[V]`.
    """

    choice: Choice
    snapshot: Snapshot
    logits: Logits

    @property
    def live(self) -> list[Choice]:
        """Itself, if it is still wanted."""
        return [] if self.choice.is_over else [self.choice]
