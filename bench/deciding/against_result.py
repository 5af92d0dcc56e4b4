"""What a comparison of a BLT with others says: one schema for the JSON and the table."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import msgspec
from rich.console import Console
from rich.table import Table

from ..environment import Environment

AGAINST_SCHEMA_VERSION = 1
BLT, VANILLA, ORIGINAL = "BLT", "vanilla", "BLT, transformers"


class Contender(msgspec.Struct, frozen=True, kw_only=True):
    """One system. `fires`: how often the bytes of one round fired each stage; empty of what is not foveal's."""

    name: str
    precision: str
    parameters: int
    bytes_per_round: int
    bytes_per_s: float
    bytes_per_s_by_round: list[float]
    fires: dict[str, int]


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """How many times as fast one system is as another: the median of the ratios within rounds, and these."""

    name: str
    precision: str
    over: str
    over_precision: str
    times: float
    by_round: list[float]


class AgainstResult(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run.

    Attributes:
        context: bytes before the first that is timed.
        parameters: of the BLT, by part.
        threshold: in nats; with it, patches of the bytes that are timed have `bytes_per_patch` on average.
        logits_differ: by how much foveal's in fp32 do from the original's at most, where both were timed.
    """

    schema_version: int
    command: str
    environment: Environment
    threads: int
    context: int
    rounds: int
    parameters: dict[str, int]
    threshold: float
    bytes_per_patch: float
    logits_differ: float
    contenders: list[Contender]
    ratios: list[Ratio]


def contender(
    name: str, precision: str, parameters: int, count: int, rates: list[float], fires: dict[str, int] | None = None
) -> Contender:
    """With the median of its rounds; `count`: bytes of each."""
    return Contender(
        name=name,
        precision=precision,
        parameters=parameters,
        bytes_per_round=count,
        bytes_per_s=median(rates),
        bytes_per_s_by_round=rates,
        fires=fires or {},
    )


def ratios_of(contenders: Sequence[Contender]) -> list[Ratio]:
    """Of foveal's BLT in each precision: over the original, and over the vanilla model of that precision."""
    by_name = {(one.name, one.precision): one for one in contenders}
    found = []
    for one in contenders:
        if one.name == BLT:
            found += [_ratio(one, by_name[ORIGINAL, "fp32"]), _ratio(one, by_name[VANILLA, one.precision])]
    return found


def _ratio(one: Contender, other: Contender) -> Ratio:
    by_round = [mine / theirs for mine, theirs in zip(one.bytes_per_s_by_round, other.bytes_per_s_by_round, strict=True)]
    return Ratio(
        name=one.name,
        precision=one.precision,
        over=other.name,
        over_precision=other.precision,
        times=median(by_round),
        by_round=by_round,
    )


def show(result: AgainstResult, console: Console) -> None:
    """Print rates, firings and ratios."""
    environment, parts = result.environment, result.parameters
    load = "" if environment.load_1min is None else f", load {environment.load_1min:.1f}"
    console.print(
        f"{environment.cpu}, threads: {result.threads}, {environment.created_utc}{load}; {result.rounds} rounds behind "
        f"{result.context} bytes; patches end above {result.threshold:.4f} nats: {result.bytes_per_patch:g} bytes on average",
        markup=False,
    )
    console.print("parameters of the BLT, M: " + ", ".join(f"{name} {count / 1e6:.1f}" for name, count in parts.items()))
    console.print(f"logits of foveal's BLT in fp32 and of the original's differ by {result.logits_differ:.1e} at most")
    table = Table("", "parameters, M", "bytes/s", "in rounds", "firings in a round", box=None)
    for one in result.contenders:
        fires = ", ".join(f"{name} {count}" for name, count in one.fires.items())
        rates = f"{min(one.bytes_per_s_by_round):,.1f} to {max(one.bytes_per_s_by_round):,.1f}"
        cells = (f"{one.parameters / 1e6:.1f}", f"{one.bytes_per_s:,.1f}", rates, fires or f"{one.bytes_per_round} bytes")
        table.add_row(f"{one.name} {one.precision}", *cells)
    console.print(table)
    for ratio in result.ratios:
        span = f"{min(ratio.by_round):.2f} to {max(ratio.by_round):.2f}"
        over = f"{ratio.over} {ratio.over_precision}"
        console.print(f"{ratio.name} {ratio.precision}: {ratio.times:.2f} times {over} ({span})", markup=False)
