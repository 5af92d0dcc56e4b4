"""Whether the stages of a model can run together: sources before readers, widths that agree, clocks that somebody decides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from .schema import InputSpec, StageSpec


def problem_of(stages: Sequence[StageSpec], place: str = "") -> str | None:
    """What is wrong with them, with what was expected; None: nothing. `place` says where they are, as ` of b.bundle`."""
    by_name: dict[str, StageSpec] = {}
    for stage in stages:
        for problem in _problems(stage, by_name):
            return f'stage "{stage.name}"{place} {problem}'
        by_name[stage.name] = stage
    for stage in stages:
        for borrowed in stage.borrows:
            if borrowed.stage not in by_name or borrowed.cache not in by_name[borrowed.stage].caches:
                return (
                    f'stage "{stage.name}"{place} borrows {borrowed.cache.name} of "{borrowed.stage}", which has no such cache'
                )
    return None


def _problems(stage: StageSpec, before: Mapping[str, StageSpec]) -> Iterator[str]:
    yield from _clock_problems(stage, before)
    yield from _recurrent_problems(stage)
    for given in stage.inputs:
        if given.count < 1 or given.shift < 0:
            yield (
                f'reads {given.count} rows of "{given.source or "tokens"}" less {given.shift}, expected at least one, of those '
                "that there are"
            )
        elif given.reads == "span" and given.count != 1:
            yield f'reads spans of "{given.source}" by {given.count} rows, expected a count of 1: they are of any length'
        elif given.source is not None and given.source not in before:
            yield f'reads "{given.source}", expected one of the stages before it'
        elif given.source is not None and given.width != before[given.source].width:
            yield (
                f'reads rows of width {given.width} from "{given.source}", which gives them {before[given.source].width} wide'
            )
        elif given.reads == "stride" and not _in_step(stage, given, before):
            yield f'reads "{given.source or "tokens"}" by stride, expected newest or span: the data decides when one fires'


def _clock_problems(stage: StageSpec, before: Mapping[str, StageSpec]) -> Iterator[str]:
    clock = stage.clock
    if clock is None:
        return
    if stage.stride != 1:
        yield f"has a clock and a stride of {stage.stride}, expected one of 1"
    if stage.resets is not None or stage.page is not None:
        yield "has a clock and forgets at multiples of a period, expected a stage that remembers or one of a fixed stride"
    if clock.stage is None:
        return
    if clock.stage not in before:
        yield f'is fired by the rows of "{clock.stage}", expected one of the stages before it'
    elif (source := before[clock.stage]).output != "hidden" or source.output_rows != 1:
        yield f'is fired by the rows of "{clock.stage}", expected a stage that gives one row per firing'
    elif source.begins_ahead:
        yield f'is fired by the rows of "{clock.stage}", which fires before there is a token, expected one that does not'
    elif not -source.width <= clock.column < source.width:
        yield f'is fired by column {clock.column} of "{clock.stage}", whose rows are {source.width} wide'


def _recurrent_problems(stage: StageSpec) -> Iterator[str]:
    for cache in stage.caches if stage.is_recurrent else ():
        if cache.recurrent and cache.keeps is not None:
            yield f"has a recurrent state {cache.name} that keeps {cache.keeps} rows, expected one that each call replaces"
    if stage.is_recurrent and stage.resets is not None:
        yield f"has a recurrent state and resets every {stage.resets} firings, expected one or the other"


def _in_step(stage: StageSpec, given: InputSpec, before: Mapping[str, StageSpec]) -> bool:
    """Whether a firing's rows are at places that follow from its index: neither clock is a log, or both are the same."""
    if given.source is None:
        return stage.clock is None
    source = before[given.source]
    return source.clock == stage.clock and (stage.clock is None or source.begins_ahead == stage.begins_ahead)
