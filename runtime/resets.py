"""Stages that forget at multiples of a period: what of them need not run, and what has to run again."""

from __future__ import annotations

from collections.abc import Iterator

from ..contract import StageSpec
from .rows import Ids


def needed_from(spec: StageSpec, position: int, tokens: int, wanted: Ids) -> int:
    """The first firing that is needed of the stage that gives logits: with those wanted, all that its period remembers."""
    fired = spec.firings(position, tokens)
    if spec.output != "logits" or spec.resets is None or not fired:
        return 0
    first = fired.start + int(wanted[0]) if len(wanted) else fired.stop - 1
    return first - first % spec.resets


def to_run_again(spec: StageSpec, fired: range, end: int, most: int) -> Iterator[range]:
    """What has to run again before some firings, in calls of at most `most`: all since the last reset.

    After a rewind the caches are of other firings; all that these read is in the logs.

    Args:
        end: the firing after the last of those that the caches are of.
    """
    if spec.resets is None or not fired or fired.start == end:
        return
    for start in range(fired.start - fired.start % spec.resets, fired.start, most):
        yield range(start, min(start + most, fired.start))
