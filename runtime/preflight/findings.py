"""What a preflight finds of an engine."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

Answer = Literal["match", "rebuild", "refuse"]
Reason = Literal[
    "fits",
    "no engines",
    "file",
    "swapped",
    "sidecar",
    "graph",
    "library missing",
    "library version",
    "system",
    "no GPU",
    "driver",
    "compute capability",
    "library's own check",
]


class Finding(msgspec.Struct, frozen=True):
    """Whether an engine runs on a machine.

    Attributes:
        answer: `match`: it does. `rebuild`: building it again, here, mends it. `refuse`: something else has to be mended first.
        reason: which rule said so, for programs.
        sentence: what is wrong, what was got and expected, and what to do.
    """

    answer: Answer
    reason: Reason
    sentence: str


_BY_WEIGHT: tuple[Answer, ...] = ("match", "rebuild", "refuse")


def gravest(findings: Iterable[Finding]) -> Finding:
    """The first of those that weigh most: what is to be refused, else rebuilt, else a match."""
    return max(findings, key=lambda finding: _BY_WEIGHT.index(finding.answer))
