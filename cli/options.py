"""Options that several verbs have: the same words, defaults and conditions everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from ..precision import Plan

MaxTokens = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(help="Calibrate on at most so many tokens, spread over the text; on all if not given."),
]
Threads = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(help="Threads of CPU engines; measured if not given."),
]
Calibration = Annotated[
    Optional[list[Path]],  # noqa: UP045
    typer.Option(help="Text to calibrate on: files, or directories of *.txt. int8 and fp16 need it, int8 caches too."),
]


def text_counts(plan: Plan, target: str) -> tuple[bool, str]:
    """When `--calibration` does something, for a plan that is to be built for a target."""
    return plan.learns_from_text(target), "a precision that text changes: fp16, int8, w4, or int8 caches on --target cpu"


def threads_count(target: str) -> tuple[bool, str]:
    """When `--threads` does something."""
    return target == "cpu", "--target cpu, as other engines have no threads"
