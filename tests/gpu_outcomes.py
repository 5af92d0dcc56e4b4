"""From pytest's reports to those of `make gpu-check`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, MutableSequence
from typing import Any

import pytest
from gpu_report import Check, Figure, GpuCheck, status_of
from gpu_subjects import Subject
from gpu_workshop import TOLERANCES

from foveal.bench.environment import read_environment
from foveal.runtime.preflight.machine import Machine

_FIGURES = "figures"


class Recorder:
    """Takes the figures of one check."""

    def __init__(self, properties: MutableSequence[tuple[str, object]]) -> None:
        self._figures: dict[tuple[str, str], Figure] = {}
        properties.append((_FIGURES, self._figures))

    def __call__(self, name: str, value: float | int | str, unit: str = "", of: str = "") -> None:
        """Keep a figure, in place of an earlier one of the same name."""
        self._figures[of, name] = Figure(name=name, value=value, unit=unit, of=of)

    def largest(self, name: str, value: float, unit: str = "") -> None:
        """Keep a figure unless an earlier one of the same name is larger."""
        known = self._figures.get(("", name))
        self(name, value if known is None else max(value, float(known.value)), unit)


class Outcomes:
    """All checks of a run, as they end."""

    def __init__(self, machine: Machine, subjects: Mapping[Subject, str | None]) -> None:
        self.machine, self.subjects = machine, subjects
        self._environment, self._checks = read_environment(), {}  # type: Any, dict[str, Check]

    def add(self, item: pytest.Item, report: pytest.TestReport) -> bool:
        """Keep a report of a check's call, or of what ended it before, or failed after; returns whether it is one of these."""
        is_kept = report.when == "call" or report.outcome != "passed"
        if is_kept:
            self._checks[item.nodeid] = _check(item, report)
        return is_kept

    def result(self, command: str, is_finished: bool) -> GpuCheck:
        """Everything so far."""
        checks = tuple(self._checks.values())
        return GpuCheck(
            command=command,
            environment=self._environment,
            machine=self.machine,
            subjects={str(subject): missing for subject, missing in self.subjects.items()},
            tolerances=TOLERANCES,
            status=status_of(checks, is_finished),
            checks=checks,
        )


def _check(item: pytest.Item, report: pytest.TestReport) -> Check:
    assert isinstance(item, pytest.Function)
    (given,) = (item.callspec.params[name] for name in ("case", "contest") if name in item.callspec.params)
    figures: Mapping[Any, Figure] = dict(item.user_properties).get(_FIGURES, {})  # type: ignore[assignment]
    is_subject = isinstance(given, Subject)  # then it is not here
    return Check(
        name=item.originalname.removeprefix("test_").replace("_", " "),
        subject=str(given if is_subject else given.subject),
        model=None if is_subject else given.model,
        precision=None if is_subject else given.precision,
        outcome=report.outcome,
        reason=_reason(report),
        seconds=round(report.duration, 3),
        figures=tuple(figures.values()),
    )


def _reason(report: pytest.TestReport) -> str | None:
    if report.outcome == "passed":
        return None
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    return inspect.cleandoc(crash.message if crash else str(report.longrepr)).splitlines()[0]
