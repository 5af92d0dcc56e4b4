"""The shapes an engine is built for: one optimisation profile for a decode step, one for a prefill."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ...contract import Contract, Limits, StageSpec, size_of

DECODE, PREFILL = 0, 1
"""The profiles' numbers."""


class Bounds(NamedTuple):
    """The smallest, the usual and the largest value of a dimension; kernels are chosen for the usual one."""

    smallest: int
    usual: int
    largest: int


class Profile(NamedTuple):
    """What the letters of an engine's shapes may be: `batch` B, `rows` L, `wanted` N."""

    batch: Bounds
    rows: Bounds
    wanted: Bounds


def profiles_of(spec: StageSpec, limits: Limits) -> tuple[Profile, Profile]:
    """A stage's two profiles; they are two even where a prefill fires it but once, so that their numbers mean the same.

    Full batches are the usual ones: a decode step reads all weights, whatever the batch, so that a kernel for the full batch
    costs a smaller one little. Long texts are read in full chunks, of which only the last is shorter, and of a prefill's
    logits only the last row is wanted.
    """
    most = most_firings(spec, limits)
    decode = Profile(_batch(limits, 1), Bounds(1, 1, 1), Bounds(1, 1, 1))
    return decode, Profile(_batch(limits, most), Bounds(1, most, most), Bounds(1, 1, most))


def _batch(limits: Limits, rows: int) -> Bounds:
    """Where all shapes are static, TensorRT-RTX 1.7 stores fp32 and fp16 weights a second time, for kernels of that profile's
    own, and widens w8 weights to memory in every step: so a single row may always be of two sequences (docs/adr/0009).
    """
    return Bounds(1, limits.batch, max(limits.batch, 2 if rows == 1 else 1))


def most_firings(spec: StageSpec, limits: Limits) -> int:
    """The most often that one call can fire a stage, at whatever phase it begins, within its capacity, a page and a period."""
    tokens = limits.prefill if spec.page is None else min(limits.prefill, spec.page)
    most = min(spec.most_firings(tokens), spec.capacity_firings(limits.capacity))
    return most if spec.resets is None else min(most, spec.resets)


def shapes(contract: Contract, sizes: Mapping[str, int], profile: Profile) -> dict[str, tuple[tuple[int, ...], ...]]:
    """Every input's smallest, usual and largest shape.

    Args:
        contract: of the stage, in its resident form.
        sizes: what the letters of fixed dimensions stand for.
        profile: what the others may.
    """
    steps = [dict(zip("BLN", values, strict=True)) for values in zip(*profile, strict=True)]
    return {
        tensor.name: tuple(tuple(size_of(size, {**letters, **sizes}) for size in tensor.shape) for letters in steps)
        for tensor in contract.inputs
    }
