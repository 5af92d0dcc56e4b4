"""Run a system on the rows of another: every stage is charged with the errors it makes itself, and with no other's.

After each stage of a step has run, the rows it has just given are compared with those that the reference gave there, and then
overwritten by them. Nothing is marked as an output that is not one, so engines stay fused as they are.

Letters: B batch, T tokens, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from ...contract import StageSpec, leads_of
from ...runtime.rows import Array
from ...runtime.schedules import Schedule, cause_of
from ...runtime.session import Session
from .chunks import spans
from .errors import Comparison

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Recording:
    """What a system gave while it decoded: by stage, rows `[lead + rows, B, D]` or logits `[B, T, V]`; and when it fired."""

    outputs: tuple[Array, ...]
    schedule: Schedule

    def magnitude(self, stage: int) -> float:
        """The largest of a stage's values, never 0."""
        return max(float(np.abs(self.outputs[stage]).max()), float(np.finfo(np.float32).tiny))


def record(session: Session, ids: Ids, chunks: Sequence[int]) -> Recording:
    """Decode ids `[B, T]` in calls of so many tokens."""
    logits = np.concatenate([session.advance(ids[:, start:end]) for start, end in spans(chunks)], axis=1)
    rows = (session.decoder.rows(stage, session.position) for stage in range(len(session.specs)))
    return Recording(tuple(logits if given is None else given for given in rows), session.schedule)


def compare_forced(
    session: Session, reference: Recording, ids: Ids, chunks: Sequence[int], comparisons: Sequence[Comparison]
) -> dict[str, int]:
    """Decode the same ids in the same calls on the reference's rows and by its schedule; returns the firings of each stage.

    Args:
        session: of the other system, at position 0.
        reference: what the reference gave.
        ids: `[B, T]`.
        chunks: lengths that add up to T.
        comparisons: one for each stage.
    """
    forced = _Forced(session, reference, comparisons)
    session.observer = forced.after_stage
    session.follow(reference.schedule)
    for start, end in spans(chunks):
        logits = session.advance(ids[:, start:end])
        for index in _heads(session.specs):
            expected = reference.outputs[index][:, start:end]
            comparisons[index].add(logits, expected, partial(logits_place, start), axis=1)
    session.observer = None
    return forced.fired


class _Forced:
    def __init__(self, session: Session, reference: Recording, comparisons: Sequence[Comparison]) -> None:
        self.fired = {spec.name: 0 for spec in session.specs}
        self._decoder, self._reference, self._comparisons = session.decoder, reference, comparisons
        self._index = {spec.name: index for index, spec in enumerate(session.specs)}
        self._leads = leads_of(session.specs)

    def after_stage(self, spec: StageSpec, firings: int, _elapsed_ns: int) -> None:
        """As `Observer`: compare what the stage gave, then put the reference's rows in its place."""
        first, index = self.fired[spec.name], self._index[spec.name]
        self.fired[spec.name] += firings
        schedule = self._reference.schedule
        rows = self._decoder.rows(index, cause_of(spec, first + firings - 1, schedule) + 1)
        if rows is None:
            return
        lead, expected = self._leads[spec.name], self._reference.outputs[index][: len(rows)]
        new = lead + first * spec.output_rows
        place = partial(_row_place, spec, schedule, first * spec.output_rows)
        self._comparisons[index].add(rows[new:], expected[new:], place, axis=0)
        self._decoder.write_rows(index, expected)


def _heads(specs: Sequence[StageSpec]) -> Iterator[int]:
    return (index for index, spec in enumerate(specs) if spec.output == "logits")


def _row_place(spec: StageSpec, schedule: Schedule, first: int, index: int) -> str:
    row = first + index
    return f"token {cause_of(spec, row // spec.output_rows, schedule)}, row {row}"


def logits_place(first: int, index: int) -> str:
    """Where index `index` is of logits that begin at token `first`: they have a row for every token."""
    return f"token {first + index}, row {first + index}"
