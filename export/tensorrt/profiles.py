"""The shapes an engine is built for: one optimisation profile for a decode step, one for a prefill."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from ...contract import Contract, Limits, StageSpec, most_firings, size_of, span_room

DECODE, PREFILL = 0, 1
"""The profiles' numbers."""


class Bounds(NamedTuple):
    """The smallest, the usual and the largest value of a dimension; kernels are chosen for the usual one."""

    smallest: int
    usual: int
    largest: int


class Profile(NamedTuple):
    """What the letters of an engine's shapes may be: `batch` B, `rows` L, `wanted` N.

    Of spans, whose lengths the data decides: `block` M, rows of all that a call reads, and `longest` P, of the longest one.
    """

    batch: Bounds
    rows: Bounds
    wanted: Bounds
    block: Bounds = Bounds(1, 1, 1)
    longest: Bounds = Bounds(1, 1, 1)


def profiles_of(spec: StageSpec, limits: Limits, sizes: Mapping[str, int]) -> tuple[Profile, Profile]:
    """A stage's two profiles; they are two even where a prefill fires it but once, so that their numbers mean the same.

    Full batches are the usual ones: a decode step reads all weights, whatever the batch, so that a kernel for the full batch
    costs a smaller one little. Long texts are read in full chunks, of which only the last is shorter, and of a prefill's
    logits only the last row is wanted. A single firing may read any span that there is room for, and usually reads as many rows
    as there are tokens to a firing; several in one call read spans of bounded length (`contract.span_room`).
    """
    most, one = most_firings(spec, limits), Bounds(1, 1, 1)
    decode, prefill = (
        Profile(_batch(limits, 1), one, one),
        Profile(_batch(limits, most), Bounds(1, most, most), Bounds(1, 1, most)),
    )
    if not spec.reads_spans:
        return decode, prefill
    sources = [given.source for given in spec.inputs if given.reads == "span"]
    there = max(limits.capacity if source is None else sizes[f"R.{source}"] for source in sources)
    room, usual = span_room(limits), 1 if spec.clock is None else math.ceil(spec.clock.tokens_per_firing)
    any_span, bounded = Bounds(1, min(usual, there), there), min(room.longest, there)
    return (
        decode._replace(block=any_span, longest=any_span),
        prefill._replace(block=_up_to(most * usual, min(room.block, there)), longest=_up_to(2 * usual, bounded)),
    )


def _batch(limits: Limits, rows: int) -> Bounds:
    """Where all shapes are static, TensorRT-RTX 1.7 stores fp32 and fp16 weights a second time, for kernels of that profile's
    own, and widens w8 weights to memory in every step: so a single row may always be of two sequences (docs/adr/0009).
    """
    return Bounds(1, limits.batch, max(limits.batch, 2 if rows == 1 else 1))


def _up_to(usual: int, largest: int) -> Bounds:
    return Bounds(1, min(usual, largest), largest)


def shapes(contract: Contract, sizes: Mapping[str, int], profile: Profile) -> dict[str, tuple[tuple[int, ...], ...]]:
    """Every input's smallest, usual and largest shape.

    Args:
        contract: of the stage, in its resident form.
        sizes: what the letters of fixed dimensions stand for.
        profile: what the others may.
    """
    steps = [dict(zip("BLNMP", values, strict=True)) for values in zip(*profile, strict=True)]
    return {
        tensor.name: tuple(tuple(size_of(_general(size), {**letters, **sizes}) for size in tensor.shape) for letters in steps)
        for tensor in contract.inputs
    }


def _general(size: int | str) -> int | str:
    """`M` for `M.window`, and so on: the bounds are those of all spans of a stage."""
    return size[0] if isinstance(size, str) and size.startswith(("M.", "P.")) else size
