"""Time between tokens by what a step fires: its distribution, and how it goes with the phase."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ...bench.result import ModelResult, StageResult
from ...bench.statistics import NS_PER_MS, summarise
from ..document import LatencyFacts, Phase, StepGroup

Floats = npt.NDArray[np.float64]
_BINS = 48
_BULK, _BEYOND = 0.75, 1.5
_MOST_PHASES = 64


def latency_facts(model: ModelResult) -> LatencyFacts:
    """Of one model, from its raw samples; where a result was saved without them, it is said."""
    samples = model.samples
    if not samples.itl_ns:
        missing = "the measurement was saved without its samples; measure again: foveal bench BUNDLE... --save F"
        return LatencyFacts(
            name=model.name, period=None, edges_ms=[], above=0, groups=[], phases=[], missing=missing, phases_missing=missing
        )
    itl_ms = np.array(samples.itl_ns, np.float64) / NS_PER_MS
    keys = _keys(model)
    order = sorted(set(keys), key=lambda key: -keys.count(key))
    members = {key: itl_ms[[other == key for other in keys]] for key in order}
    edges = _edges([*members.values()])
    period, phases_missing = _period(model.stages)
    return LatencyFacts(
        name=model.name,
        period=period,
        edges_ms=edges.tolist(),
        above=int((itl_ms > edges[-1]).sum()),
        groups=[_group(key, members[key], edges, len(keys)) for key in order],
        phases=[] if period is None else _phases(period, samples.token, itl_ms, [order.index(key) for key in keys]),
        missing=None,
        phases_missing=phases_missing,
    )


Key = tuple[str, ...] | None
"""Names of the coarse stages that a step fires; None where it is only known that some fire."""


def _keys(model: ModelResult) -> list[Key]:
    """Of each step: what was kept of it; of an older measurement, what strides say of its token."""
    samples = model.samples
    coarse = [stage for stage in model.stages if stage.stride > 1 or stage.expected is not None]
    if samples.stage_set:
        names = {stage.name for stage in coarse}
        sets = [tuple(name for name in fired if name in names) for fired in samples.stages]
        return [sets[number] for number in samples.stage_set]
    if not coarse or any(stage.expected is not None for stage in coarse):
        return [None if fired else () for fired in samples.fired or [False] * len(samples.token)]
    return [tuple(stage.name for stage in coarse if (token - stage.delay) % stage.stride == 0) for token in samples.token]


def _edges(groups: Sequence[Floats]) -> Floats:
    """From the quickest step to beyond the bulk of every group: what was disturbed would press all others together."""
    low = min(float(itl_ms.min()) for itl_ms in groups)
    high = max(float(np.quantile(itl_ms, _BULK)) for itl_ms in groups) * _BEYOND
    return np.linspace(low, max(high, low + 1e-3), _BINS + 1)


def _group(key: Key, itl_ms: Floats, edges: Floats, steps: int) -> StepGroup:
    return StepGroup(
        coarse=None if key is None else list(key),
        share=len(itl_ms) / steps,
        itl_ms=summarise(itl_ms.tolist(), "ms"),
        counts=np.histogram(itl_ms, edges)[0].tolist(),
    )


def _period(stages: Sequence[StageResult]) -> tuple[int | None, str | None]:
    """Tokens after which the same stages fire; and why steps can't be told apart by it."""
    if not stages:
        return None, "its stages are not known"
    if any(stage.expected is not None for stage in stages):
        return None, "the data decides when its stages fire, so steps have no phase"
    period = math.lcm(*(stage.stride for stage in stages))
    if period == 1:
        return None, "all its stages fire at every token, so steps have no phase"
    if period > _MOST_PHASES:
        return None, f"it has {period} phases, more than the {_MOST_PHASES} that are shown"
    return period, None


def _phases(period: int, tokens: Sequence[int], itl_ms: Floats, groups: Sequence[int]) -> list[Phase]:
    by_phase: dict[int, list[int]] = defaultdict(list)
    for index, token in enumerate(tokens):
        by_phase[token % period].append(index)
    found = []
    for phase, indices in sorted(by_phase.items()):
        low, mid, high = np.quantile(itl_ms[indices], (0.1, 0.5, 0.9), method="inverted_cdf").tolist()
        found.append(Phase(phase=phase, group=groups[indices[0]], count=len(indices), p10_ms=low, p50_ms=mid, p90_ms=high))
    return found
