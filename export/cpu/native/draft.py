"""A program while it is written: every result has a buffer of its own, until all is known and they share.

A step is the `Step` that it will be, whose indices of buffers are those of results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ....contract.program import Add, BufferSpec, Product, Step

_READS = ("x", "a", "b", "c", "added", "qkv", "angles", "query", "key_values")
_WRITES = ("out", "total")


def reads(step: Step) -> list[int]:
    """The results that a step reads."""
    return [value for name in _READS if (value := getattr(step, name, None)) is not None]


def writes(step: Step) -> list[int]:
    """The results that a step writes."""
    return [value for name in _WRITES if (value := getattr(step, name, None)) is not None]


def with_buffers(step: Step, of: Callable[[int], int]) -> Step:
    """The same step on other buffers."""
    names = (name for name in (*_READS, *_WRITES) if getattr(step, name, None) is not None)
    return msgspec.structs.replace(step, **{name: of(getattr(step, name)) for name in names})


@dataclass
class Draft:
    """Results, by their buffers, and the steps that make them, in order; `inputs` are results that no step makes."""

    buffers: list[BufferSpec] = field(default_factory=list)
    steps: list[Any] = field(default_factory=list)
    inputs: set[int] = field(default_factory=set)
    output: int = -1

    def new(self, width: int, wanted: bool = False) -> int:
        """A result that there is no step for yet."""
        self.buffers.append(BufferSpec(width=width, wanted=wanted))
        return len(self.buffers) - 1

    def like(self, result: int, width: int | None = None) -> int:
        """A result of the same rows, and as wide if not said otherwise."""
        of = self.buffers[result]
        return self.new(of.width if width is None else width, of.wanted)

    def maker(self, result: int) -> Any:
        """The step that makes a result; None of an input. There is one, but for results that are copied together."""
        return next((step for step in self.steps if result in writes(step)), None)

    def readers(self, result: int) -> list[Any]:
        """Steps that read a result."""
        return [step for step in self.steps if result in reads(step)]


def share_buffers(draft: Draft) -> tuple[list[BufferSpec], list[Step], dict[int, int]]:
    """Buffers that are used again once nobody reads what is in them, steps on those, and where each result is.

    A result and what is read for it are apart, but for a product or a sum that adds what nobody else reads: it may be written
    where that was.
    """
    last = {result: index for index, step in enumerate(draft.steps) for result in (*writes(step), *reads(step))}
    last[draft.output] = len(draft.steps)
    place: dict[int, int] = {}
    buffers: list[BufferSpec] = []
    free: list[int] = []

    def find(spec: BufferSpec) -> int:
        for index in free:
            if buffers[index] == spec:
                free.remove(index)
                return index
        buffers.append(spec)
        return len(buffers) - 1

    kept = {result: find(draft.buffers[result]) for result in sorted(draft.inputs)}
    place |= kept
    output = find(draft.buffers[draft.output])
    steps = []
    for index, step in enumerate(draft.steps):
        ends = [result for result in dict.fromkeys(reads(step)) if last[result] == index and result not in draft.inputs]
        for result in writes(step):
            if result == draft.output:
                place[result] = output
            elif result not in place:
                reused = _overwritten(step, ends, draft.buffers, result)
                place[result] = find(draft.buffers[result]) if reused is None else place[reused]
                if reused is not None:
                    ends.remove(reused)
        steps.append(with_buffers(step, place.__getitem__))
        ends += [result for result in writes(step) if last[result] == index and result != draft.output]
        free += [place[result] for result in ends]
    return buffers, steps, place


def _overwritten(step: Step, ends: Sequence[int], buffers: Sequence[BufferSpec], result: int) -> int | None:
    """What is read here for the last time, in whose buffer a result may be written."""
    given = (step.added,) if isinstance(step, Product) else (step.a, step.b, step.c) if isinstance(step, Add) else ()
    kept = step.x if isinstance(step, Product) else None
    usable = (one for one in given if one is not None and one != kept and one in ends and buffers[one] == buffers[result])
    return next(usable, None)
