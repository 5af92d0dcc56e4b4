"""State of fewer tokens from the state of more: all that the first tokens of a sequence have written are its first rows.

Firings are numbered, rows and caches are addressed by them, and a firing reads only what the tokens up to the one that causes
it have written. So state can be cut behind any token, also where that is no multiple of a stride: what a stage wrote between
two tokens are the rows of the firings that they caused; where the data decides, the boundaries are a part of what was written
and tell. Three kinds of caches are none of rows in order:

- those of a stage that resets, and keep a period's rows, are of no use in a copy: wherever a session is restored, the stage
  runs again from its last reset. They are left out of parts, and come back as zeros.
- those that are written over (`keeps`, in a stage that compacts) can't be taken apart, and be cut no further than `rewinds`.
- a recurrent state is of all tokens together: such a copy is used whole, or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ...contract import CacheSpec, StageSpec, clocks_of, leads_of, rewinds_of
from ...errors import InputError
from ..decoder import Written
from ..rows import Array
from ..schedules import firings_by
from ..snapshots import Snapshot


def cut(snapshot: Snapshot, specs: Sequence[StageSpec], tokens: int) -> Snapshot:
    """A copy of the first `tokens` tokens' state, as if the session had been rewound to there and copied.

    Args:
        snapshot: of any batch.
        specs: of the stages that it is of.
        tokens: between 0 and its position.

    Raises:
        InputError: more tokens than it holds, or fewer than can be had of a model that compacts its past.
    """
    if not 0 <= tokens <= snapshot.position:
        raise InputError(f"can't cut to {tokens} tokens: the snapshot holds {snapshot.position}; give a number between the two")
    if tokens < least_of(specs, snapshot.reached) and tokens:
        raise InputError(
            f"can't cut to {tokens} tokens: the model compacts its past, and of the {snapshot.reached} it had seen it can take "
            f"back {rewinds_of(specs)}; take an older snapshot, or append the tokens again"
        )
    if 0 < tokens < snapshot.position and is_recurrent(specs):
        raise InputError(
            f"can't cut to {tokens} tokens: the model has a recurrent state, and the snapshot that of {snapshot.position}; "
            "restore it and rewind the session, which runs what is needed again"
        )
    fired = Fired(specs, snapshot.written)
    rows = tuple(
        None if given is None else given[:stop].copy()
        for given, stop in zip(snapshot.written.rows, fired.rows(tokens), strict=True)
    )
    caches = tuple(
        tuple(array[:, :, : cache.length(fired.within(spec, tokens))].copy() for cache, array in _paired(spec, arrays))
        for spec, arrays in zip(specs, snapshot.written.caches, strict=True)
    )
    if not tokens:
        caches = tuple(
            tuple(np.zeros_like(array) if cache.recurrent else array for cache, array in _paired(spec, arrays))
            for spec, arrays in zip(specs, caches, strict=True)
        )
    written = Written(rows, caches, fired.boundaries(0, tokens))
    reached = snapshot.reached if tokens else 0
    return Snapshot(tokens, reached, snapshot.batch, snapshot.bundle, snapshot.tokens[:, :tokens].copy(), written)


class Fired:
    """How often stages have fired, by what was written: of a part, from its first token on.

    Args:
        specs: of the stages.
        written: what they wrote.
    """

    def __init__(self, specs: Sequence[StageSpec], written: Written) -> None:
        self._specs, self._leads = specs, leads_of(specs)
        self._made = dict(zip(clocks_of(specs), written.boundaries, strict=True))

    def within(self, spec: StageSpec, tokens: int) -> int:
        """How often the first so many tokens have fired a stage."""
        if spec.clock is None:
            return spec.firings_within(tokens)
        return firings_by(spec, self._made[spec.clock], tokens)

    def rows(self, tokens: int) -> list[int]:
        """Rows of each stage's log after so many tokens, with the zeros in front of the first."""
        return [self._leads[spec.name] + self.within(spec, tokens) * spec.output_rows for spec in self._specs]

    def boundaries(self, start: int, stop: int) -> tuple[Array, ...]:
        """Those that tokens `[start, stop)` have made."""
        return tuple(made[(made >= start) & (made < stop)] for made in self._made.values())


def least_of(specs: Sequence[StageSpec], reached: int) -> int:
    """The fewest tokens above 0 that state can be cut to, which had `reached` so many before it was rewound."""
    rewinds = rewinds_of(specs)
    return 0 if rewinds is None else max(reached - rewinds, 0)


def is_recurrent(specs: Sequence[StageSpec]) -> bool:
    """Whether state is of all tokens together."""
    return any(spec.is_recurrent for spec in specs)


def is_divisible(specs: Sequence[StageSpec]) -> bool:
    """Whether state is rows in order, so that it can be taken apart and sequences can share what their first tokens wrote."""
    lent = {(borrowed.stage, borrowed.cache.name) for spec in specs for borrowed in spec.borrows}
    return (
        rewinds_of(specs) is None
        and not is_recurrent(specs)
        and all(
            cache.keeps is None or (spec.resets is not None and (spec.name, cache.name) not in lent)
            for spec in specs
            for cache in spec.caches
        )
    )


def check_rows(snapshot: Snapshot, specs: Sequence[StageSpec]) -> None:
    """Raise InputError unless a snapshot has as many rows as its tokens make these stages write."""
    rows = [None if given is None else len(given) for given in snapshot.written.rows]
    caches = [[cache.shape[2] for cache in of_stage] for of_stage in snapshot.written.caches]
    fired = _fired(snapshot, specs)
    within = [fired.within(spec, snapshot.position) for spec in specs]
    expected = fired.rows(snapshot.position)
    if rows != [None if spec.output == "logits" else stop for spec, stop in zip(specs, expected, strict=True)] or caches != [
        [cache.length(firings) for cache in spec.caches] for spec, firings in zip(specs, within, strict=True)
    ]:
        raise InputError(
            f"the snapshot's rows are not those of {snapshot.position} tokens of this model; "
            "take it from a session of the same bundle and target"
        )


def _fired(snapshot: Snapshot, specs: Sequence[StageSpec]) -> Fired:
    try:
        return Fired(specs, snapshot.written)
    except ValueError:
        raise InputError(
            f"the snapshot has the boundaries of {len(snapshot.written.boundaries)} clocks, expected those of this model; "
            "take it from a session of the same bundle and target"
        ) from None


def without_rows(written: Written) -> Written:
    """What is the same in all state of a batch and of engines: dtypes and widths."""
    rows = tuple(None if given is None else given[:0].copy() for given in written.rows)
    caches = tuple(tuple(cache[:, :, :0].copy() for cache in caches) for caches in written.caches)
    return Written(rows, caches, tuple(made[:0].copy() for made in written.boundaries))


def part(written: Written, specs: Sequence[StageSpec], start: int, stop: int, begin: int = 0) -> Written:
    """Views of what the tokens `[start, stop)` have written, of what those from `begin` on have; `is_divisible` must hold.

    The part from 0 on has what stands or was written in front of the first token, too.
    """

    def here(of_stop: int, of_start: int, of_begin: int) -> slice:
        return slice((of_start if start else 0) - (of_begin if begin else 0), of_stop - (of_begin if begin else 0))

    fired = Fired(specs, written)
    rows = tuple(
        None if given is None else given[here(*ends)]
        for given, *ends in zip(written.rows, *(fired.rows(tokens) for tokens in (stop, start, begin)), strict=True)
    )
    caches = tuple(
        tuple(
            array[:, :, here(*(_cache_rows(fired.within(spec, tokens), cache) for tokens in (stop, start, begin)))]
            for cache, array in _paired(spec, arrays)
        )
        for spec, arrays in zip(specs, written.caches, strict=True)
    )
    return Written(rows, caches, fired.boundaries(start, stop))


def copied(written: Written) -> Written:
    """With arrays of its own."""
    rows = tuple(None if given is None else given.copy() for given in written.rows)
    caches = tuple(tuple(cache.copy() for cache in caches) for caches in written.caches)
    return Written(rows, caches, tuple(made.copy() for made in written.boundaries))


def joined(parts: Sequence[Written], specs: Sequence[StageSpec], tokens: int) -> Written:
    """A copy of parts that follow one another, from the first token on: what `Decoder.read` gives after `tokens` tokens."""
    rows = tuple(
        None if parts[0].rows[stage] is None else np.concatenate([_given(one.rows[stage]) for one in parts])
        for stage in range(len(specs))
    )
    boundaries = tuple(np.concatenate(made) for made in zip(*(one.boundaries for one in parts), strict=True))
    fired = Fired(specs, Written(rows, (), boundaries))
    caches = tuple(
        tuple(
            _lengthened([one.caches[stage][index] for one in parts], cache.length(fired.within(spec, tokens)))
            for index, cache in enumerate(spec.caches)
        )
        for stage, spec in enumerate(specs)
    )
    return Written(rows, caches, boundaries)


def _given(rows: Array | None) -> Array:
    if rows is None:
        raise TypeError("a stage that gives logits keeps no rows")
    return rows


def _lengthened(parts: Sequence[Array], rows: int) -> Array:
    """Parts of a cache behind one another, and zeros up to so many rows."""
    batch, heads, _, width = parts[0].shape
    array, end = np.zeros((batch, heads, rows, width), parts[0].dtype), 0
    for one in parts:
        array[:, :, end : end + one.shape[2]] = one
        end += one.shape[2]
    return array


def _cache_rows(firings: int, cache: CacheSpec) -> int:
    """Rows of a cache that a part has to have after so many firings."""
    return 0 if cache.keeps is not None else firings * cache.rows


def _paired(spec: StageSpec, arrays: Sequence[Array]) -> Iterator[tuple[CacheSpec, Array]]:
    return zip(spec.caches, arrays, strict=True)
