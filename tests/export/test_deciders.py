"""What it is worth to keep in fp32 what decides when stages fire: measured, and said."""

from __future__ import annotations

import numpy as np
import pytest
from deciding_model import deciding
from precisions import needs_int8_caches, write_text

from foveal.contract import ClockSpec, StageSpec
from foveal.export import PlanReport, convert_model, plan_precision
from foveal.export.deciders import Followed, bytes_saved, narrow_name, weigh_decider, with_stage
from foveal.export.pace import Pace
from foveal.precision import Plan, ProductPrecision
from foveal.runtime.schedules import Decisions

CLOCK = ClockSpec(stage="pre", tokens_per_firing=4.5)


def stage(name: str, stride: int = 1, clock: ClockSpec | None = None) -> StageSpec:
    """One of no size."""
    return StageSpec(name=name, stride=stride, clock=clock, inputs=(), output="hidden", width=1, layers=0, parameters=0)


def decided(made: list[bool]) -> Decisions:
    """Of tokens 0, 1, ..."""
    bits = np.array(made)
    return Decisions(np.arange(len(made)), np.zeros(len(made), np.float32), bits, bits)


def product(name: str, obtained: str) -> ProductPrecision:
    """Of 1,000 weights."""
    return ProductPrecision(product=name, rows=10, columns=100, asked=obtained, obtained=obtained)


def test_a_pace_is_what_a_text_showed() -> None:
    """Until then, what clocks expect; a stride is arithmetic."""
    pace = Pace([stage("pre"), stage("middle", clock=CLOCK), stage("coarse", stride=4)])
    assert [pace.tokens_per_firing(name) for name in ("pre", "middle", "coarse")] == [1, 4.5, 4]
    pace.add({CLOCK: decided([False, True] * 3)}, 6)
    pace.add({CLOCK: decided([False] * 3 + [True])}, 4)
    assert [pace.tokens_per_firing(name) for name in ("pre", "middle", "coarse")] == [1, 2.5, 4]
    made = pace.even(10)[CLOCK].made
    assert np.flatnonzero(made).tolist() == [2, 5, 8]


def test_an_even_pace_before_anything_fired() -> None:
    """As the clock expects."""
    pace = Pace([stage("pre"), stage("middle", clock=CLOCK)])
    pace.add({CLOCK: decided([False] * 5)}, 5)
    assert np.flatnonzero(pace.even(11)[CLOCK].made).tolist() == [4, 9]


def test_a_stage_takes_another_precision_with_all_its_products() -> None:
    """Those of other stages stay."""
    plan = Plan(stages={"pre": "w4", "post": "w8"}, products={"middle/a": "w4", "pre/b": "int8"})
    assert with_stage(plan, "pre", "fp32") == Plan(stages={"pre": "fp32", "post": "w8"}, products={"middle/a": "w4"})


def test_what_narrow_weights_save() -> None:
    """Bytes; the precision by name."""
    products = [product("pre/a", "w4"), product("pre/b", "fp32"), product("pre/c", "int8")]
    assert bytes_saved(products) == 1000 * (3.5 + 0 + 3)
    assert narrow_name(products) == "int8 and w4"


@pytest.mark.parametrize(("spread", "pays", "verdict"), [(0.0, True, "it pays"), (30.0, False, "no gain is shown")])
def test_fp32_pays_where_its_gain_is_shown(spread: float, pays: bool, verdict: str) -> None:
    """Not where it is within what windows differ by."""
    strays = np.array([spread, -spread, spread, -spread])
    narrow = Followed(np.full(4, 102.0) + strays, 404.0, 1.0, 9, 404)
    wide = Followed(np.full(4, 101.0), 401.0, 1.0, 1, 404)
    found = weigh_decider("pre", "w4", False, narrow, wide, 2e6)
    assert (found.chosen, found.pays, found.megabytes_per_token) == ("w4", pays, 2)
    assert found.gain == pytest.approx(0.01)
    assert (found.narrow_forced_loss, found.wide_forced_loss) == (pytest.approx(0.01), pytest.approx(0.0025))
    assert (found.narrow_flips, found.wide_flips) == (9 / 404, 1 / 404)
    assert verdict in str(found)
    assert str(found).startswith("keeping stage pre, which decides, in fp32 instead of w4 costs 2.000 MB/token")


def test_a_stage_that_can_not_be_narrow() -> None:
    """Nothing is weighed, as there is nothing to choose."""
    same = Followed(np.full(4, 101.0), 401.0, 1.0, 0, 404)
    found = weigh_decider("pre", narrow_name([product("pre/a", "fp32")]), True, same, same, 0)
    assert str(found) == "stage pre, which decides, is in fp32: none of its products can be in another of these precisions"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> PlanReport:
    """A plan of a model that decides."""
    directory = tmp_path_factory.mktemp("deciders")
    bundle = convert_model(deciding(recurrent=True), directory / "b.bundle", tokenizer="bytes")
    text = write_text(directory / "text.txt")
    return plan_precision(bundle, [text], 1.0, precisions=("w4",), windows_measured=6, threads=1)


@needs_int8_caches
def test_the_planner_says_what_the_decider_is_worth(report: PlanReport) -> None:
    """In fp32 nothing flips that the stage itself computes; narrow, something does."""
    (found,) = report.deciders
    assert (found.stage, found.narrow) == ("pre", "w4")
    assert found.chosen == ("fp32" if set(report.predicted.precisions.values()) == {"fp32"} else found.chosen)
    assert found.wide_flips == 0
    assert found.narrow_flips > 0
    assert found.megabytes_per_token > 0
    assert found.wide_loss == pytest.approx(found.wide_forced_loss)
