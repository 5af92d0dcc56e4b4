"""Memory by context length: weights and state by arithmetic, working memory of fresh processes."""

from __future__ import annotations

from collections.abc import Callable

from ...bench.claims.footprint import footprint
from ...bench.claims.process import measure_process
from ...bench.result import RooflineResult
from ...bundle import Bundle
from ..document import MemoryFacts, MemoryPoint, Needs

_POINTS = 16
_MEASURED = (4, 2, 1)
"""The context divided by these: at which lengths working memory is measured."""


def lengths_of(context: int) -> list[int]:
    """In equal steps up to the context, those at which working memory is measured among them."""
    steps = {max(1, context * number // _POINTS) for number in range(1, _POINTS + 1)}
    return sorted({1, *steps, *measured_lengths(context)})


def measured_lengths(context: int) -> list[int]:
    """A quarter, a half and all of the context."""
    return sorted({max(1, context // part) for part in _MEASURED})


def memory_facts(bundle: Bundle, target: str, working: dict[int, int], missing: str | None) -> MemoryFacts:
    """Of one bundle. `working`: what processes took beside weights and state, by length."""
    points = []
    for tokens in lengths_of(bundle.manifest.model.context):
        taken = footprint(bundle, target, tokens)
        state = taken.caches + taken.rows
        points.append(
            MemoryPoint(
                tokens=tokens,
                weights=taken.weights,
                caches=taken.caches,
                rows=taken.rows,
                state=state,
                held=taken.weights + state,
                working=working.get(tokens),
            )
        )
    return MemoryFacts(name=bundle.name, points=points, missing=missing)


def measure_working(
    bundle: Bundle, threads: int, chunk: int, native: bool | None, report: Callable[[int], None]
) -> tuple[dict[int, int], str | None]:
    """Bytes that CPU engines take beside weights and state, by length, in a process for each; and why some are not known."""
    found: dict[int, int] = {}
    missing = None
    for tokens in measured_lengths(bundle.manifest.model.context):
        report(tokens)
        process, reason = measure_process(bundle.path, "cpu", threads, tokens, chunk, native)
        if process is None:
            missing = f"a process that reads {tokens} tokens: {reason}"
            continue
        taken = footprint(bundle, "cpu", tokens)
        found[tokens] = max(0, process.peak - process.loaded - taken.caches - taken.rows)
    return found, missing


def needs_of(facts: MemoryFacts, roofline: RooflineResult | None) -> Needs:
    """What any device must have for it; `roofline` as measured."""
    full = facts.points[-1]
    read = None if roofline is None else roofline.weight_bytes_per_token + roofline.cache_bytes_per_token
    return Needs(
        name=facts.name,
        memory=full.held + (full.working or 0),
        bytes_per_token=read,
        tokens_per_s_per_gb_s=1e9 / read if read else None,
    )
