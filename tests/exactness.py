"""What holds for every session, whatever runs it: the same checks for fakes on the host and for engines on a GPU.

Errors and tolerances are shares of the largest logit that was expected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st
from precisions import distance
from specimens import random_ids

from foveal.contract import leads_of
from foveal.runtime.resident import ResidentDecoder
from foveal.runtime.resident_state import StageState, StateTensor
from foveal.runtime.rows import Array
from foveal.runtime.session import Session

Reference = Callable[[Array], Array]
"""Ids `[B, L]` to the logits that they should have, all at once."""

EXACT = 1e-4
"""Of engines that compute in fp32, and of no two of them in the same order."""

steps = st.one_of(
    st.tuples(st.just("advance"), st.sampled_from([1, 1, 1, 2, 3, 7, 24])),
    st.tuples(st.just("rewind"), st.integers(1, 20)),
    st.tuples(st.sampled_from(["snapshot", "restore", "fork"]), st.just(0)),
)
"""What may be done with a session, in any order."""

paths = st.lists(steps, min_size=4, max_size=12)


class Walk:
    """Takes a session anywhere, and holds every logit it gives against the reference's.

    Attributes:
        largest: error so far.
    """

    def __init__(self, session: Session, reference: Reference, tolerance: float = EXACT) -> None:
        self.session, self.reference, self.tolerance, self.largest = session, reference, tolerance, 0.0
        self.moment = session.snapshot()
        self.advance(9)

    def take(self, step: str, tokens: int) -> None:
        """Do one thing."""
        if step == "advance":
            self.advance(tokens)
        elif step == "rewind":
            self.session.rewind(min(tokens, self.session.position))
        elif step == "snapshot":
            self.moment = self.session.snapshot()
        elif step == "restore":
            self.session.restore(self.moment)
        else:
            self.session = self.session.fork()

    def advance(self, tokens: int) -> None:
        """Append tokens that were not seen before, as far as there is room."""
        position, past = self.session.position, self.session.tokens.copy()
        new = random_ids(self.session.batch, min(tokens, self.session.capacity - position), self.vocabulary, position + tokens)
        if new.size == 0:
            return
        expected = self.reference(np.concatenate([past, new], 1))[:, position:]
        error = distance(self.session.advance(new), expected)
        self.largest = max(self.largest, error)
        assert error <= self.tolerance, f"{error:.1e} of the largest logit, at {new.shape[1]} tokens from {position}"

    @property
    def vocabulary(self) -> int:
        """Ids are below it."""
        return self.session.model.vocab_size


def greedy(session: Session, prompt: Array, count: int) -> Array:
    """The `count` likeliest tokens `[count]` after a prompt `[1, L]`, one by one; the session then holds all but the last."""
    session.reset()
    found = [session.advance(prompt, last_only=True)[0, -1].argmax()]
    for _ in range(count - 1):
        found.append(session.advance([[found[-1]]], last_only=True)[0, -1].argmax())
    return np.array(found)


def equal_until_a_tie(got: Array, expected: Array, reference: Reference, prompt: Array, tolerance: float) -> int:
    """Check that two greedy continuations part at most where two tokens are equally likely within the tolerance.

    Returns:
        tokens before they part.
    """
    differing = np.flatnonzero(got != expected)
    if not len(differing):
        return len(expected)
    place = int(differing[0])
    logits = reference(np.concatenate([prompt, expected[None, :place]], 1))[0, -1]
    lead = float(logits[expected[place]] - logits[got[place]]) / float(np.abs(logits).max())
    assert lead <= 2 * tolerance, f"token {place} is {got[place]}, expected {expected[place]}, which leads by {lead:.1e}"
    return place


PATTERN = 0x5A
"""In every byte: a large number in fp32, one of some hundreds in fp16, and none that is not finite."""


class Kept(NamedTuple):
    """A tensor of a stage's state, and how many of its rows are written at a position."""

    name: str
    state: StageState
    tensor: StateTensor
    rows: Callable[[int], int]

    def read(self) -> Array:
        """All of it, written or not, as bytes `[rows, ...]`."""
        everything = np.ascontiguousarray(self.state.read(self.tensor, self.tensor.shape[2]).transpose(2, 0, 1, 3))
        return everything.view(np.uint8).reshape(len(everything), -1)

    def spoil(self, position: int) -> None:
        """Put the pattern into every row that is not written."""
        everything = self.state.read(self.tensor, self.tensor.shape[2])
        rest = everything[:, :, self.rows(position) :]
        rest[...] = np.full(rest.nbytes, PATTERN, np.uint8).view(rest.dtype).reshape(rest.shape)
        self.state.write(self.tensor, everything)


def decoder_of(session: Session) -> ResidentDecoder:
    """The session's decoder, which is one for devices."""
    assert isinstance(session.decoder, ResidentDecoder)
    return session.decoder


def kept_by(session: Session) -> Iterator[Kept]:
    """Every cache and log."""
    leads = leads_of(session.specs)
    for spec, state in zip(session.specs, decoder_of(session)._states, strict=True):

        def firings(position: int, spec=spec) -> int:
            return spec.firings_within(position)

        def log_rows(position: int, spec=spec, firings=firings) -> int:
            return leads[spec.name] + firings(position) * spec.output_rows

        for cache in state.caches:
            yield Kept(f"{spec.name}: {cache.past}", state, cache, firings)
        if state.log is not None:
            yield Kept(f"{spec.name}: {state.log.past}", state, state.log, log_rows)


def check_writes_new_rows_only(session: Session, chunks: list[int]) -> int:
    """No byte of any cache or log changes but those of the rows that a call adds, and all of these do.

    Returns:
        bytes that were watched.
    """
    for kept in kept_by(session):
        kept.spoil(session.position)
    for tokens in chunks:
        before, start = [kept.read() for kept in kept_by(session)], session.position
        session.advance(random_ids(session.batch, tokens, session.model.vocab_size, start))
        for kept, old in zip(kept_by(session), before, strict=True):
            changed = np.flatnonzero((kept.read() != old).any(1)).tolist()
            assert changed == list(range(kept.rows(start), kept.rows(start + tokens))), f"{kept.name}, from token {start}"
    return sum(old.nbytes for old in before)


def check_what_is_not_written_does_not_matter(session: Session, reference: Reference, tolerance: float) -> float:
    """Logits are the same if every row that is not written yet holds something large; returns the largest error."""
    session.reset()
    ids, found = random_ids(session.batch, 30, session.model.vocab_size), []
    for start, end in ((0, 7), (7, 8), (8, 9), (9, 29), (29, 30)):
        for kept in kept_by(session):
            kept.spoil(session.position)
        found.append(session.advance(ids[:, start:end]))
    error = distance(np.concatenate(found, 1), reference(ids))
    assert error <= tolerance, f"{error:.1e} of the largest logit"
    return error


def check_shared_addresses(session: Session) -> bool:
    """Past and present of all state are one buffer where the engines work in place, and two where they do not.

    Returns:
        whether they work in place.
    """
    in_place = set()
    for state in decoder_of(session)._states:
        addresses = {name: buffer.address for name, buffer in state.bindings()}
        for tensor in state.tensors:
            assert (addresses[tensor.past] == addresses[tensor.present]) == (state.sides == 1), tensor.past
        in_place |= {state.sides == 1} if state.tensors else set()
    assert len(in_place) == 1, "some stages work in place and some do not"
    return in_place.pop()
