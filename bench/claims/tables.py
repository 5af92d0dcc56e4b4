"""Results as plain tables, which the terminal and the docs share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ...calibration.probe import Probe
from .memory import PARTS, baseline_of, change
from .rare_words import interval
from .result import (
    ClaimsResult,
    FiringModel,
    MemoryCase,
    MemoryResult,
    OrderResult,
    RareGroup,
    RareModel,
    RareWordsResult,
    SpeedCase,
    SpeedResult,
    Verdict,
)
from .settings import CLAIMS, Claim

SENTENCES: dict[Claim, str] = {
    "speed": "26 hierarchical layers are 30 % faster than 14 vanilla ones",
    "memory": "30 layers take 23 % less memory than 12 to 14 vanilla ones",
    "firing": "coarse layers run only once every k tokens, the coarsest once every 16",
    "rare-words": "hierarchical models are better on rare words",
    "order": "the order of tokens more than about 50 back does not matter",
}


class Sheet(NamedTuple):
    """A table; the first column is text, the others are figures."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]


class Page(NamedTuple):
    """One claim: what the article says, whether it holds here, what was measured, and what makes its figures doubtful."""

    claim: Claim
    verdict: Verdict
    sheets: list[Sheet]
    doubts: Sequence[str] = ()


def pages(result: ClaimsResult) -> list[Page]:
    """The claims that were measured, in their order."""
    found = {page.claim: page for page in _pages(result)}
    return [found[claim] for claim in CLAIMS if claim in found]


def _pages(result: ClaimsResult) -> Iterator[Page]:
    if result.speed is not None:
        yield Page("speed", result.speed.verdict, _speed(result.speed), result.speed.noise)
    if result.memory is not None:
        yield Page("memory", result.memory.verdict, _memory(result.memory), result.memory.missing)
    if result.firing is not None:
        yield Page("firing", result.firing.verdict, [_firing(model) for model in result.firing.models])
    if result.rare_words is not None:
        yield Page("rare-words", result.rare_words.verdict, _rare_words(result.rare_words))
    if result.order is not None:
        yield Page("order", result.order.verdict, [_order(result.order)])


def _speed(speed: SpeedResult) -> list[Sheet]:
    columns = (
        *("model", "precision", "past", "tokens/s", "times vanilla", "in rounds", "by layers", "by bytes"),
        *("ms, coarse fires", "ms, none does"),
    )
    title = f"decoding {speed.new_tokens} tokens, {speed.rounds} rounds, against {speed.vanilla}"
    return [Sheet(title, columns, [_speed_row(case) for case in speed.cases])]


def _speed_row(case: SpeedCase) -> tuple[str, ...]:
    ratios = case.speedup_by_round
    return (
        *(case.model, case.precision, f"{case.context:,}", f"{case.tokens_per_s:,.0f}", _ratio(case.speedup)),
        f"{min(ratios):.2f} to {max(ratios):.2f}" if ratios else "-",
        *(_ratio(case.by_layers), _ratio(case.by_bytes)),
        *(_ratio(case.ms_where_coarse_fires), _ratio(case.ms_where_none_does)),
    )


def _memory(memory: MemoryResult) -> list[Sheet]:
    columns = ("model", "layers", "run per token", "tokens", "weights", "KV", "rows", "working", "process, loaded", "peak")
    sheets = [Sheet("MB", columns, [_memory_row(case) for case in memory.cases])]
    deep = [case for case in memory.cases if case.model not in memory.baselines]
    for name in memory.baselines:
        base = {tokens: baseline_of(memory.cases, name, tokens) for tokens in dict.fromkeys(case.tokens for case in deep)}
        rows = [(case.model, f"{case.tokens:,}", *_changes(case, base[case.tokens])) for case in deep]
        sheets.append(Sheet(f"against {name}", ("model", "tokens", *PARTS), rows))
    return sheets


def _memory_row(case: MemoryCase) -> tuple[str, ...]:
    sizes = (case.weights, case.caches, case.rows, case.working, case.loaded, case.peak)
    return (case.model, str(case.layers), f"{case.layer_equivalents:.2f}", f"{case.tokens:,}", *map(_megabytes, sizes))


def _changes(case: MemoryCase, baseline: MemoryCase) -> tuple[str, ...]:
    changes = [change(case, baseline, part) for part in PARTS]
    return tuple("-" if found is None else f"{found:+.0%}" for found in changes)


def _firing(model: FiringModel) -> Sheet:
    rows: list[tuple[str, ...]] = [
        (
            *(stage.name, str(stage.layers), f"{stage.stride}, {stage.fires}", f"{stage.firings:,}", f"{stage.expected:,}"),
            *(f"{stage.engine_ms:.2f}", f"{stage.engine_ms * stage.firings / model.tokens:.3f}"),
        )
        for stage in model.stages
    ]
    title = f"{model.model}: {model.tokens} tokens, {model.layers_run_per_token:.2f} of {model.layers} layers run per token"
    return Sheet(title, ("stage", "layers", "stride, fires", "firings", "expected", "ms per call", "ms per token"), rows)


def _rare_words(rare: RareWordsResult) -> list[Sheet]:
    return [sheet for model in rare.models for sheet in _rare_model(model)]


def _rare_model(model: RareModel) -> Iterator[Sheet]:
    compute = "" if model.compute is None else f", {model.compute:.2f} times its training compute"
    title = f"{model.model}, {model.hierarchy}, against vanilla{compute}"
    columns = ("nats", "vanilla", "difference", "")
    rows = [(_span(group), *_rare_row(group)) for group in model.tokens] + [("all", *_rare_row(model.overall))]
    yield Sheet(title, ("token, per million", "tokens", *columns), rows)
    if model.words:
        rows = [(_counts(group), *_rare_row(group)) for group in model.words]
        yield Sheet(f"{model.model}, whole words", ("word, in the text", "words", *columns), rows)


def _rare_row(group: RareGroup) -> tuple[str, ...]:
    return (f"{group.count:,}", f"{group.nats:.3f}", f"{group.vanilla_nats:.3f}", interval(group), group.answer)


def _span(group: RareGroup) -> str:
    """Rates, up to the next group's."""
    return f"{group.at_least:,} and more" if group.below is None else f"{group.at_least:,} to {group.below:,}"


def _counts(group: RareGroup) -> str:
    """Whole numbers, the last included."""
    if group.below is None:
        return f"{group.at_least:,} and more"
    last = group.below - 1
    return f"{last:,}" if last == group.at_least else f"{group.at_least:,} to {last:,}"


def _order(order: OrderResult) -> Sheet:
    first = order.probes[0]
    title = f"rise of the loss behind a shuffled half, nats; {first.windows} windows of {first.window} tokens"
    rows = [
        (f"{span.first}" if span.first == span.last else f"{span.first} to {span.last}", *_rises(order.probes, place))
        for place, span in enumerate(first.distances)
    ]
    settled = tuple("never" if found.settles_at is None else f"from {found.settles_at} on" for found in order.probes)
    rows.append((f"below {first.threshold} nats", *settled))
    return Sheet(title, ("tokens back", *(f"{found.bundle}, {found.hierarchy}" for found in order.probes)), rows)


def _rises(probes: list[Probe], place: int) -> list[str]:
    return [f"{found.distances[place].nats:+.3f} ± {found.distances[place].half_width:.3f}" for found in probes]


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _megabytes(value: int | None) -> str:
    return "-" if value is None else f"{value / 1e6:,.1f}"
