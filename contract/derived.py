"""What follows from the schema of all stages of a model: where calls may end, who waits for whom, how long logs are."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

from .clock import ClockSpec
from .schema import BEGINNING, Limits, StageSpec


def vocab_size_of(stages: Sequence[StageSpec]) -> int:
    """Token ids that the last stage, which gives logits, tells apart."""
    return stages[-1].width


def page_of(stages: Sequence[StageSpec]) -> int | None:
    """The tokens whose multiples no call may cross; None: any call will do."""
    pages = [stage.page for stage in stages if stage.page is not None]
    return math.gcd(*pages) if pages else None


def room_of(stages: Sequence[StageSpec], position: int) -> int:
    """Tokens from a position on that one call can take if none of its stages is to cross a page or a reset."""
    page = page_of(stages)
    rooms = [] if page is None else [page - position % page]
    for stage in stages:
        if stage.resets is not None:
            fired = stage.firings(position, 1)
            following = fired.stop if fired else fired.start
            rooms.append(stage.fired_by(following + -following % stage.resets) - position)
    return min(rooms, default=sys.maxsize)


def period_of(stages: Sequence[StageSpec]) -> int:
    """Tokens after which the same stages fire again."""
    return math.lcm(*(stage.stride for stage in stages))


def late_stages(stages: Sequence[StageSpec]) -> frozenset[str]:
    """Those whose rows nobody reads in the decode step that makes them: the others need not wait for them.

    Rows are addressed linearly, so what holds for the first few periods of firing holds for ever. It holds of the rows made in
    the step: a stage that runs again from its last reset writes older ones too, and is waited for. Where the data decides who
    fires, the rest of a step reads what fired in it.
    """
    if any(stage.clock is not None for stage in stages):
        return frozenset()
    period = period_of(stages)
    waited_for = {stages[-1].name, *(borrowed.stage for stage in stages for borrowed in stage.borrows)}
    for token in range(BEGINNING, 3 * period):
        rows = {stage.name: stage.firings(token, 1).start * stage.output_rows for stage in stages if stage.firings(token, 1)}
        for stage in stages:
            for firing in stage.firings(token, 1):
                for given in stage.inputs:
                    last = firing * given.count - given.shift + given.count - 1
                    if given.source in rows and last >= rows[given.source]:
                        waited_for.add(given.source)
    return frozenset(stage.name for stage in stages) - waited_for


def clocks_of(stages: Sequence[StageSpec]) -> tuple[ClockSpec, ...]:
    """The clocks by which the data decides, each once, in dataflow order; none: all stages fire by a fixed stride."""
    return tuple(dict.fromkeys(stage.clock for stage in stages if stage.clock is not None))


def begins_ahead(stages: Sequence[StageSpec]) -> bool:
    """Whether some stage fires before there is any token."""
    return any(stage.begins_ahead for stage in stages)


def needs_clocks(stages: Sequence[StageSpec]) -> bool:
    """Whether more than arithmetic says what fires and what it reads, or a firing replaces what was remembered."""
    return any(
        stage.clock is not None or stage.is_recurrent or any(given.reads != "stride" for given in stage.inputs)
        for stage in stages
    )


def rewinds_of(stages: Sequence[StageSpec]) -> int | None:
    """The most tokens that can be taken back; None: all."""
    limits = [stage.rewinds for stage in stages if stage.rewinds is not None]
    return min(limits) if limits else None


def leads_of(stages: Sequence[StageSpec]) -> dict[str, int]:
    """Rows of zeros in front of each stage's log, so that the first windows of those that read it are whole."""
    shifts: dict[str, int] = {stage.name: 0 for stage in stages}
    for stage in stages:
        for given in stage.inputs:
            if given.source is not None:
                shifts[given.source] = max(shifts[given.source], given.reach)
    return shifts


def rows_within(stages: Sequence[StageSpec], tokens: int) -> list[int]:
    """Rows of each stage's log after so many tokens, with the zeros in front of the first."""
    leads = leads_of(stages)
    return [leads[stage.name] + stage.firings_within(tokens) * stage.output_rows for stage in stages]


def sizes_of(limits: Limits, stages: Sequence[StageSpec], name: str) -> dict[str, int]:
    """What the letters of fixed dimensions stand for in a stage's engine: `S`, `R`, and `R.<source>` of what it reads."""
    by_name, leads = {stage.name: stage for stage in stages}, leads_of(stages)

    def log_rows(stage: StageSpec) -> int:
        return leads[stage.name] + stage.capacity_firings(limits.capacity) * stage.output_rows

    stage = by_name[name]
    sources = {given.source for given in stage.inputs if given.source is not None}
    lenders = {borrowed.stage for borrowed in stage.borrows}
    return {
        "S": stage.capacity_firings(limits.capacity),
        **{f"S.{lender}": by_name[lender].capacity_firings(limits.capacity) for lender in sorted(lenders)},
        "R": log_rows(stage),
        **{f"R.{source}": log_rows(by_name[source]) for source in sorted(sources)},
    }
