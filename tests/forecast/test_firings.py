"""When stages fire, for measurements: arithmetic, what was seen, what is expected."""

from __future__ import annotations

import numpy as np
from deciding import newest
from programs import TOKENS, stage

from foveal.bench.chance import ChanceFirings
from foveal.contract import ClockSpec, StageSpec
from foveal.forecast.firings import Fired, coarse_steps, firings_of, is_coarse
from foveal.runtime.schedules import Decisions, Schedule

CLOCK = ClockSpec(stage="pre", tokens_per_firing=4)
DEEPER = ClockSpec(stage="decided", tokens_per_firing=8)
PRE = stage("pre", 1, [TOKENS])


def decided(name: str = "decided", clock: ClockSpec = CLOCK, fires: str = "close") -> StageSpec:
    """A stage that the data fires."""
    return stage(name, 1, [newest("pre")], clock=clock, fires=fires)


def schedule(*boundaries: int) -> Schedule:
    """Of 20 tokens."""
    made = np.isin(np.arange(20), boundaries)
    return {CLOCK: Decisions(np.arange(20), np.zeros(20, np.float32), made, made)}


def test_by_stride() -> None:
    """Of tokens 2 to 9 the stage of stride 4 fires at 4 and 8."""
    four = stage("4", 4, [TOKENS])
    assert list(firings_of(four).among(2, 8)) == [Fired(1, 5), Fired(2, 9)]
    assert firings_of(four).within(9) == 3


def test_what_was_seen() -> None:
    """The boundaries of the schedule; a stage that fires ahead has had one more."""
    seen = schedule(1, 4, 11)
    assert list(firings_of(decided(), seen).among(2, 10)) == [Fired(1, 5), Fired(2, 12)]
    assert list(firings_of(decided(fires="ahead"), seen).among(2, 3)) == [Fired(2, 5)]
    assert (firings_of(decided(), seen).within(11), firings_of(decided(fires="ahead"), seen).within(12)) == (2, 4)


def test_what_is_expected() -> None:
    """With every token a share of a firing."""
    assert list(firings_of(decided()).among(8, 2)) == [Fired(2, 9, 0.25), Fired(2.25, 10, 0.25)]
    assert (firings_of(decided()).within(8), firings_of(decided(fires="ahead")).within(8)) == (2, 3)


def test_steps_that_fire_a_coarse_stage() -> None:
    """Of a decided stage, those where it fired, and not its rate."""
    assert not is_coarse(PRE)
    assert coarse_steps([PRE, decided()], schedule(3, 5), range(2, 7)) == [False, True, False, True, False]


def test_chance_has_the_expected_rate() -> None:
    """Stages of one clock fire together; one that is decided by rows of another, where that fired alone."""
    chance, steps = ChanceFirings([PRE, decided(), decided("deep", DEEPER)]), np.ones(1000, np.bool_)
    rates = []
    for _ in range(20):
        chance.begin()
        outer = chance.of_slots(CLOCK, steps)
        assert (chance.of_slots(CLOCK, steps) == outer).all()
        inner = chance.of_slots(DEEPER, outer)
        assert not (inner & ~outer).any()
        rates.append((outer.mean(), inner.mean()))
    np.testing.assert_allclose(np.mean(rates, 0), [1 / 4, 1 / 8], rtol=0.05)
    chance.begin()
    assert 4000 < (found := chance.of_rows(CLOCK, 20_000)) < 6000
    assert chance.of_rows(CLOCK, 20_000) == found
