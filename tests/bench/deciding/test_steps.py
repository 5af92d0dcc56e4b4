"""Steps that fire against steps that do not: which is which, and the arithmetic. No test depends on a time."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from deciding import newest
from deciding_model import deciding_bundle
from programs import TOKENS, stage
from rich.console import Console
from store import Store

from foveal import load
from foveal.bench.deciding.steps import StepsResult, draw, expected_ms, measure, ratio_of, shares_of, show
from foveal.bench.decode import Load
from foveal.contract import ClockSpec
from foveal.runtime.model import Model

TEXT = "It was a dark and stormy night; the rain fell in torrents, except at occasional intervals. " * 2
SPECS = (
    stage("pre", 1, [TOKENS]),
    stage("middle", 1, [newest("pre")], clock=ClockSpec(stage="pre", tokens_per_firing=4)),
    stage("deep", 1, [newest("middle")], clock=ClockSpec(stage="middle", tokens_per_firing=8)),
)
FIRED = [("middle",), (), (), ("middle", "deep")]


@pytest.fixture(scope="module")
def model(store: Store) -> Model:
    """Of bytes."""
    return load(deciding_bundle(store), threads=1)


@pytest.fixture(scope="module")
def result(model: Model) -> StepsResult:
    """Of 60 bytes."""
    return measure(model, Load(20, 60, 2).reading(model, TEXT), "test")


def test_ratios_are_of_medians() -> None:
    """Of steps that fire anything, over those that fire nothing."""
    assert ratio_of([6.0, 1.0, 3.0, 10.0], FIRED) == 8.0 / 2.0
    assert ratio_of([6.0, 1.0], [(), ()]) is None


def test_what_is_expected_weighs_both_kinds() -> None:
    """A quarter of steps fire, whatever this text did."""
    assert expected_ms([6.0, 1.0, 3.0, 10.0], FIRED, SPECS) == 8.0 / 4 + 2.0 * 3 / 4
    assert expected_ms([6.0], [("middle",)], SPECS) is None


def test_shares_are_of_all_engine_time() -> None:
    """And firings are beside what was expected."""
    pre, middle, deep = shares_of(SPECS, {"pre": [10**6] * 16, "middle": [2 * 10**6, 10**7, 4 * 10**6], "deep": []}, 16)
    assert (pre.share, middle.share, deep.share) == (0.5, 0.5, 0.0)
    assert (middle.fires, middle.expected, middle.ms_per_firing, middle.ms_per_token) == (3, 4, 4.0, 1.0)
    assert (deep.fires, deep.expected, deep.ms_per_firing) == (0, 2, 0.0)


def test_every_step_is_of_one_kind(result: StepsResult, model: Model) -> None:
    """By what a session fires that reads the text."""
    session = model.session()
    session.advance(Load(20, 60).reading(model, TEXT).sequences(1, 256))
    (decisions,) = session.schedule.values()
    assert [kind.fires for kind in result.kinds] == [[], ["middle"]]
    assert result.kind_of_step == decisions.made[20:].astype(int).tolist()
    assert sum(kind.steps for kind in result.kinds) == len(result.step_ms) == 60
    assert [one.fires for one in result.stages] == [60, int(decisions.made[20:].sum()), 60]
    assert sum(one.share for one in result.stages) == pytest.approx(1)


def test_it_survives_json_and_is_shown(result: StepsResult, tmp_path: Path) -> None:
    """With a picture, the same bytes for the same result."""
    assert msgspec.json.decode(msgspec.json.encode(result), type=StepsResult) == result
    console = Console(width=160, record=True)
    show(result, console)
    assert "a step that fires takes" in console.export_text()
    draw(tmp_path / "a.svg", result)
    draw(tmp_path / "b.svg", result)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert "fires middle" in (tmp_path / "a.svg").read_text(encoding="utf-8")
