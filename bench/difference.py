"""Two saved results: which figures changed beyond noise, which are missing, and what else was other."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import median
from typing import Any, Literal

import msgspec

from ..errors import ConfigError
from .environment import Environment
from .figures import Figure, figures_of
from .ratio import Ratio, unpaired_ratio
from .result import BenchResult
from .sweep_result import SweepResult

Verdict = Literal["changed", "same", "not judged"]
LEAST = 0.05
"""Changes that are smaller count as noise: rounds of one run do not show what differs from run to run."""
_PASSING = {"created_utc", "load_1min", "memory_bandwidth_gb_s", "device", "device_after"}
"""Of an environment, what is another in every run."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One figure in both results, the median of its rounds; `ratio` is the second in times of the first.

    `verdict`: "changed" where the interval leaves 1 out and the ratio is further from 1 than `least`; of what is counted, where
    it is another number; of memory's peak, which hardly varies, where it is further than `least`; of what was measured once
    nothing can be said.
    """

    whose: str
    figure: str
    unit: str
    before: float
    after: float
    ratio: Ratio | None
    verdict: Verdict


class Other(msgspec.Struct, frozen=True, kw_only=True):
    """Something that the two runs do not share."""

    what: str
    before: Any
    after: Any


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """`missing`: figures of the first result alone; `new`: of the second alone."""

    least: float
    environment: list[Other]
    changes: list[Change]
    missing: list[str]
    new: list[str]
    problems: list[str]

    @property
    def changed(self) -> list[Change]:
        """Those beyond noise."""
        return [change for change in self.changes if change.verdict == "changed"]


def difference(before: BenchResult | SweepResult, after: BenchResult | SweepResult, least: float = LEAST) -> Difference:
    """Compare two results of the same load.

    Raises:
        ConfigError: results of different kinds or loads, none of whose figures mean the same.
    """
    _require_alike(before, after)
    ours, theirs = figures_of(before), figures_of(after)
    changes = [_change(key, ours[key], theirs[key], least) for key in ours if key in theirs]
    return Difference(
        least=least,
        environment=[*_environment(before.environment, after.environment), *_settings(before, after)],
        changes=changes,
        missing=[", ".join(key) for key in ours if key not in theirs],
        new=[", ".join(key) for key in theirs if key not in ours],
        problems=[f"{which}: {one}" for which, result in (("before", before), ("after", after)) for one in result.problems],
    )


def _require_alike(before: BenchResult | SweepResult, after: BenchResult | SweepResult) -> None:
    if isinstance(before, SweepResult) != isinstance(after, SweepResult):
        raise ConfigError("one result is of a sweep and the other is not; compare two of a kind")
    one, other = (_load(result) for result in (before, after))
    differing = [f"{name} {one[name]} and {other[name]}" for name in one if one[name] != other[name]]
    if differing:
        raise ConfigError(
            f"the results are of different loads ({', '.join(differing)}), so that no figure means the same; measure again "
            "with those of the first"
        )


def _load(result: BenchResult | SweepResult) -> dict[str, object]:
    """What all figures depend on."""
    if isinstance(result, SweepResult):
        return {"new tokens": result.new_tokens}
    return {"prompt tokens": result.prompt_tokens, "new tokens": result.new_tokens, "reading": result.reads}


def _change(key: tuple[str, str], before: Figure, after: Figure, least: float) -> Change:
    whose, name = key
    first, second = median(before.values), median(after.values)
    ratio = unpaired_ratio(after.values, before.values) if first > 0 and second > 0 else None
    verdict = _verdict(before, after, ratio, least)
    return Change(whose=whose, figure=name, unit=before.unit, before=first, after=second, ratio=ratio, verdict=verdict)


def _verdict(before: Figure, after: Figure, ratio: Ratio | None, least: float) -> Verdict:
    if "exact" in (before.kind, after.kind):
        return "changed" if median(before.values) != median(after.values) else "same"
    is_far = ratio is not None and abs(math.log(ratio.ratio)) > math.log1p(least)
    if before.kind == after.kind == "steady":
        return "changed" if is_far else "same"
    if ratio is None or ratio.low is None:
        return "not judged"
    return "changed" if ratio.differs and is_far else "same"


def _environment(before: Environment, after: Environment) -> Iterator[Other]:
    for name in Environment.__struct_fields__:
        one, other = getattr(before, name), getattr(after, name)
        if name in _PASSING or one == other:
            continue
        if isinstance(one, dict):
            keys = (key for key in one | other if one.get(key) != other.get(key))
            yield from (Other(what=key, before=one.get(key), after=other.get(key)) for key in keys)
        else:
            yield Other(what=name, before=one, after=other)


def _settings(before: BenchResult | SweepResult, after: BenchResult | SweepResult) -> Iterator[Other]:
    """How models of one name were run, and how often."""
    if before.rounds != after.rounds:
        yield Other(what="rounds", before=before.rounds, after=after.rounds)
    if isinstance(before, SweepResult) or isinstance(after, SweepResult):
        return
    theirs = {model.name: model for model in after.models}
    for model in before.models:
        for name in ("threads", "runtime", "hierarchy", "precision"):
            one, other = getattr(model, name), getattr(theirs.get(model.name), name, None)
            if model.name in theirs and one != other:
                yield Other(what=f"{model.name}, {name}", before=one, after=other)
