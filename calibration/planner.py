"""Which precision for which stage: the least time within a budget of loss, exactly.

Losses are taken to add up over units, which holds while they are small; whoever plans measures the whole afterwards.
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import msgspec
import numpy as np
import numpy.typing as npt

from ..errors import BackendUnavailable, ConfigError, install
from ..precision import Plan

_TIE = 1e-6  # relative: far below what is measured, above the solver's rounding
_WORST = 1e3  # a loss of 100,000 %: whatever is worse, such as logits that are no numbers, is not better for being near it


class Option(msgspec.Struct, frozen=True, kw_only=True):
    """A unit at one precision.

    Attributes:
        precision: as in `foveal.precision`.
        ms_per_token: milliseconds per token, weighted by how often the stage fires.
        loss: relative rise of bits per byte when only this unit has this precision; noise may make it negative.
    """

    precision: str
    ms_per_token: float
    loss: float


class Unit(msgspec.Struct, frozen=True, kw_only=True):
    """A stage, or one product of a stage, whose precision is chosen as a whole."""

    name: str
    stage: str
    options: tuple[Option, ...]


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """A precision for every unit, with the sum of their times and of their losses."""

    precisions: dict[str, str]
    ms_per_token: float
    predicted_loss: float


def choose(units: Sequence[Unit], budget: float) -> Choice:
    """The fastest choice whose losses sum to at most `budget`; among equally fast ones, the one of least loss.

    A mixed-integer program: one binary variable for each option, exactly one set in each unit.

    Raises:
        ConfigError: no units, a unit without options, a budget that is no number or below 0, or one that no choice keeps.
        BackendUnavailable: scipy is not installed.
    """
    check_budget(budget)
    if not units:
        raise ConfigError("there is nothing to choose a precision for; give at least one unit")
    for unit in units:
        if not unit.options:
            raise ConfigError(f"{unit.name} has no precision to choose from; give at least one option")
    smallest = sum(min(_counted(option) for option in unit.options) for unit in units)
    if smallest > budget * (1 + _TIE):
        raise ConfigError(f"no choice keeps the loss within {budget:.3%}: the smallest is {smallest:.3%}; allow more")
    times, losses = _column(units, lambda option: option.ms_per_token), _column(units, _counted)
    fastest = _solve(units, times, [(losses, budget)])
    # What the first solution reached is the second's limit, as it may be over the budget by the solver's tolerance.
    limits = [(losses, max(budget, float(losses @ fastest))), (times, float(times @ fastest))]
    return _choice(units, _solve(units, losses, limits))


def check_budget(budget: float) -> None:
    """Raise ConfigError unless a loss may be at most this share."""
    if math.isnan(budget) or budget < 0:
        raise ConfigError(f"the budget is {budget}, expected a share of at least 0, for instance 0.01 for 1 %")


def frontier(units: Sequence[Unit], most: int = 50) -> list[Choice]:
    """Choices that nothing beats in both time and loss, by rising loss; at most `most` of them, from the largest loss down."""
    found: list[Choice] = []
    budget = sum(max(_counted(option) for option in unit.options) for unit in units)
    smallest = sum(min(_counted(option) for option in unit.options) for unit in units)
    while len(found) < most:
        found.append(choose(units, budget))
        budget = found[-1].predicted_loss * (1 - 10 * _TIE) - 1e-12
        if budget < smallest:
            break
    return found[::-1]


def uniform_choice(units: Sequence[Unit], precision: str) -> Choice:
    """The choice of one precision for everything, which every unit must have."""
    return _choice(units, np.array([option.precision == precision for unit in units for option in unit.options]))


def plan_of_choice(choice: Choice, units: Sequence[Unit], *, head: bool = True, embedding: bool = False) -> Plan:
    """The plan that a choice stands for."""
    stages = {unit.name: choice.precisions[unit.name] for unit in units if unit.name == unit.stage}
    products = {unit.name: choice.precisions[unit.name] for unit in units if unit.name != unit.stage}
    used = set(choice.precisions.values())
    default = used.pop() if len(used) == 1 else "fp32"  # nothing is left to it: it only keeps a uniform plan's label
    return Plan(default=default, stages=stages, products=products, head=head, embedding=embedding)


def _counted(option: Option) -> float:
    """Noise that makes a loss negative is no credit that another unit might spend; an infinite one the solver can't add."""
    return min(max(option.loss, 0.0), _WORST)


_Vector = npt.NDArray[np.float64]


def _column(units: Sequence[Unit], value: Callable[[Option], float]) -> _Vector:
    return np.array([value(option) for unit in units for option in unit.options])


def _solve(units: Sequence[Unit], cost: _Vector, limits: Sequence[tuple[_Vector, float]]) -> _Vector:
    """Minimise `cost @ x` over choices x of one option per unit, with `row @ x <= limit` for each limit."""
    try:
        from scipy.optimize import Bounds, LinearConstraint, milp
    except ImportError as error:
        raise BackendUnavailable(f"planning precisions needs scipy: {install('export')}") from error
    counts = [len(unit.options) for unit in units]
    one_each = np.repeat(np.eye(len(units)), counts, axis=1)
    constraints = [LinearConstraint(one_each, 1, 1)]
    # Losses are small numbers: in shares of their limit they are well above the solver's tolerance.
    constraints += [LinearConstraint(row / (limit or 1.0), -np.inf, (1.0 if limit else 0.0) + _TIE) for row, limit in limits]
    with _silence():
        result = milp(
            cost / (cost.max() or 1.0),
            constraints=constraints,
            integrality=np.ones(len(cost)),
            bounds=Bounds(0, 1),
            options={"mip_rel_gap": 0.0},  # by default the solver stops within 0.01 % of the best
        )
    if result.x is None:
        raise ConfigError(f"the solver found no choice ({result.message}); allow more loss")
    solution: _Vector = np.round(result.x)
    return solution


@contextmanager
def _silence() -> Iterator[None]:
    """Keep a debugging line that scipy 1.17's solver prints from C off the standard output, where a program may read JSON."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
        ctypes.CDLL(None).fflush(None)
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def _choice(units: Sequence[Unit], chosen: _Vector | npt.NDArray[np.bool_]) -> Choice:
    options = [(unit, option) for unit in units for option in unit.options]
    taken = [pair for pair, flag in zip(options, chosen, strict=True) if flag]
    return Choice(
        precisions={unit.name: option.precision for unit, option in taken},
        ms_per_token=sum(option.ms_per_token for _, option in taken),
        predicted_loss=sum(_counted(option) for _, option in taken),
    )
