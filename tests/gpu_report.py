"""What `make gpu-check` found: one schema for the JSON and the page."""

from __future__ import annotations

from typing import Literal

import msgspec

from foveal.bench.environment import Environment
from foveal.runtime.preflight.machine import Machine

GPU_CHECK_SCHEMA_VERSION = 1

Outcome = Literal["passed", "failed", "skipped"]
Status = Literal["passed", "failed", "nothing checked", "unfinished"]


class Figure(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something measured; `of` says of what, where a check measures several things. Words have an empty unit."""

    name: str
    value: float | int | str
    unit: str
    of: str = ""


class Check(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One check of one subject.

    Attributes:
        name: what was checked, in words.
        subject: target, or target and provider, as `"cuda:tensorrt"`.
        model, precision: null for what is not of one model.
        reason: why it was skipped, or the first line of why it failed.
        seconds: that it took, without getting ready.
    """

    name: str
    subject: str
    model: str | None = None
    precision: str | None = None
    outcome: Outcome
    reason: str | None = None
    seconds: float
    figures: tuple[Figure, ...] = ()


class GpuCheck(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole run.

    Attributes:
        command: what was run.
        environment, machine: versions, power mode and clocks; GPUs, driver and engine libraries.
        subjects: all that were considered, and why one was not checked; null: it was.
        tolerances: by precision, of the largest logit.
        status: `"nothing checked"` if all was skipped, `"unfinished"` if it was cut off.
    """

    schema_version: int = GPU_CHECK_SCHEMA_VERSION
    command: str
    environment: Environment
    machine: Machine
    subjects: dict[str, str | None]
    tolerances: dict[str, float]
    status: Status
    checks: tuple[Check, ...]

    def of(self, subject: str) -> list[Check]:
        """The checks of a subject."""
        return [check for check in self.checks if check.subject == subject]


def status_of(checks: tuple[Check, ...], is_finished: bool) -> Status:
    """Of all of them."""
    outcomes = {check.outcome for check in checks}
    if not is_finished:
        return "unfinished"
    return "failed" if "failed" in outcomes else "passed" if "passed" in outcomes else "nothing checked"
