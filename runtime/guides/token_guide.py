"""One text's way through a constraint."""

from __future__ import annotations

import copy
from time import perf_counter

import numpy as np
import numpy.typing as npt

from ...errors import InputError
from .masks import Job, Place
from .matcher import Matcher
from .vocabulary import Vocabulary


class TokenGuide:
    """A `Guide` by llguidance.

    Args:
        vocabulary: the model's.
        matcher: at the beginning of a text.
        end_ids: tokens that end a text: allowed where it may end, and nowhere else.
    """

    def __init__(self, vocabulary: Vocabulary, matcher: Matcher, end_ids: frozenset[int]) -> None:
        self._vocabulary = vocabulary
        self._matcher: Matcher | None = matcher  # None once it is closed
        self._end_ids = np.array(sorted(end_ids), np.int64)
        self._is_first, self._has_ended = True, False
        self._seconds = self._waited = 0.0  # of places behind this one; of all
        self._job: Job | None = self._begin(matcher)

    def allowed(self) -> npt.NDArray[np.bool_]:
        """As `Guide.allowed`."""
        return self._place().mask

    def take(self, token: int) -> None:
        """As `Guide.take`."""
        mask = self._place().mask
        if not 0 <= token < len(mask) or not mask[token]:
            raise InputError(
                f"token {token} does not follow the constraint here, expected one of the {int(mask.sum())} ids that may come"
            )
        if token in self._end_ids:
            self._has_ended = True
            return
        matcher, _ = self._open()
        self._seconds = self.seconds
        matcher.take(self._vocabulary.first_taken(token) if self._is_first else [token])
        self._is_first = False
        self._job = self._begin(matcher)

    def fork(self) -> TokenGuide:
        """As `Guide.fork`; what is being computed serves both."""
        matcher, _ = self._open()
        made = copy.copy(self)
        made._matcher = matcher.at_same_place()
        made._seconds = made._waited = 0.0
        return made

    @property
    def is_whole(self) -> bool:
        """As `Guide.is_whole`."""
        return self._place().may_end

    @property
    def seconds(self) -> float:
        """As `Guide.seconds`."""
        return self._seconds + (0.0 if self._job is None else self._job.seconds)

    @property
    def waited_seconds(self) -> float:
        """As `Guide.waited_seconds`."""
        return self._waited

    def close(self) -> None:
        """As `Guide.close`."""
        self._seconds = self.seconds
        self._job = self._matcher = None

    def _open(self) -> tuple[Matcher, Job]:
        if self._matcher is None or self._job is None:
            raise InputError("this guide is closed; make another")
        return self._matcher, self._job

    def _place(self) -> Place:
        _, job = self._open()
        began = perf_counter()
        place = job.place()
        self._waited += perf_counter() - began
        return place._replace(mask=_read_only(np.zeros_like(place.mask))) if self._has_ended else place

    def _begin(self, matcher: Matcher) -> Job:
        """Compute what may follow."""
        is_first = self._is_first
        job = Job(lambda: self._found(matcher, is_first))
        job.start()
        return job

    def _found(self, matcher: Matcher, is_first: bool) -> tuple[npt.NDArray[np.bool_], bool]:
        ids, may_end = matcher.followers(self._vocabulary.count)
        text_ids = self._vocabulary.of_model(ids)
        mask = self._vocabulary.first_allowed(text_ids) if is_first else text_ids
        mask[self._end_ids] = False
        if not may_end and not mask.any():
            raise InputError(self._dead_end(ids))
        mask[self._end_ids] = may_end
        return _read_only(mask), may_end

    def _dead_end(self, ids: npt.NDArray[np.bool_]) -> str:
        taken = np.flatnonzero(ids[: self._vocabulary.size])
        if np.isin(taken, self._end_ids).any():
            return (
                f"the constraint asks for token {int(taken[0])} inside the text, which is one that ends it; "
                "name other end tokens, or change the constraint"
            )
        return "no token of the tokenizer writes what the constraint asks for next; allow other characters there"


def _read_only(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    mask.flags.writeable = False
    return mask
