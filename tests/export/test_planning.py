"""Plans that keep a budget: chosen by what each stage loses and gains, and measured as a whole."""

from __future__ import annotations

import json
import math
from pathlib import Path

import msgspec
import pytest
from precisions import PrecisionZoo, needs_int8_caches, write_text

from foveal import CalibrationError, CalibrationSettings, ConfigError
from foveal.export import PlanReport, build, plan_precision
from foveal.export.planning import _Workshop
from foveal.precision import Plan, read_plan, write_plan

pytestmark = needs_int8_caches  # the planner measures them
PRECISIONS = ("int8", "w4")
BUDGET = 0.02
LOOSE = 1000.0


def planned(precise: PrecisionZoo, name: str, budget: float, **choices: object) -> PlanReport:
    """A plan for a specimen, measured on little."""
    specimen = precise[name]
    settings = {"precisions": PRECISIONS, "windows_measured": 2, "threads": 1, **choices}
    return plan_precision(specimen.full, [specimen.text], budget, **settings)


@pytest.fixture(scope="module")
def report(precise: PrecisionZoo) -> PlanReport:
    """The plan of a model of five stages, two of which have no products."""
    return planned(precise, "nested", BUDGET)


def test_the_plan_keeps_its_budget(report: PlanReport) -> None:
    """Measured as a whole, not only predicted."""
    assert report.budget == BUDGET
    assert report.chosen.loss <= BUDGET
    assert report.predicted.predicted_loss >= 0
    assert report.chosen.ms_per_token > 0


def test_every_precision_is_measured_throughout(report: PlanReport) -> None:
    """fp32 first, which loses nothing; so one sees whether a mixture is worth its while."""
    assert list(report.uniform) == ["fp32", *PRECISIONS]
    assert report.uniform["fp32"].loss == pytest.approx(0, abs=1e-6)
    assert all(measured.ms_per_token > 0 and math.isfinite(measured.loss) for measured in report.uniform.values())


def test_units_are_stages_and_the_products_of_the_most_sensitive_one(report: PlanReport) -> None:
    """Each at every precision, with what it loses alone; in fp32 that is nothing."""
    stages = {unit.stage for unit in report.units}
    assert stages == {"1.pre", "2.pre", "6", "2.post", "1.post"}
    split = {unit.stage for unit in report.units if unit.name != unit.stage}
    assert len(split) == 1
    (worst,) = split
    assert worst not in {unit.name for unit in report.units}
    assert all(unit.name.startswith(f"{worst}/") for unit in report.units if unit.stage == worst)
    for unit in report.units:
        assert [option.precision for option in unit.options] == ["fp32", *PRECISIONS]
        assert unit.options[0].loss == 0


def test_the_plan_says_a_precision_for_every_unit(report: PlanReport) -> None:
    """And for nothing else."""
    plan, precisions = report.plan, report.predicted.precisions
    assert set(precisions) == {unit.name for unit in report.units}
    assert {**plan.stages, **plan.products} == precisions
    assert set(precisions.values()) <= {"fp32", *PRECISIONS}


def test_the_frontier_trades_loss_for_time(report: PlanReport) -> None:
    """More loss, less time."""
    losses = [choice.predicted_loss for choice in report.frontier]
    times = [choice.ms_per_token for choice in report.frontier]
    assert losses == sorted(losses)
    assert times == sorted(times, reverse=True)
    assert report.frontier


def test_losses_are_measured_on_text_held_out(report: PlanReport) -> None:
    """Two windows of 96 tokens, the first token of which is not predicted."""
    assert report.held_out_tokens == 2 * 95
    assert report.threads == 1


def test_a_report_is_json(report: PlanReport) -> None:
    """Whole, there and back."""
    data = msgspec.json.encode(report)
    assert msgspec.json.decode(data, type=PlanReport) == report
    assert json.loads(data)["uniform"].keys() == report.uniform.keys()


def test_a_plan_goes_through_its_file_into_a_bundle(report: PlanReport, precise: PrecisionZoo, tmp_path: Path) -> None:
    """Every product is what the plan says."""
    specimen = precise["nested"]
    write_plan(tmp_path / "plan.json", report.plan)
    assert read_plan(tmp_path / "plan.json") == report.plan
    bundle = build(specimen.full, tmp_path / "b", tmp_path / "plan.json", calibration=specimen.calibration)
    assert bundle.manifest.plan == report.plan
    for entry in bundle.manifest.stages:
        for product in bundle.sidecar("cpu", entry.spec.name).products:
            asked = report.predicted.precisions.get(product.product) or report.predicted.precisions[entry.spec.name]
            assert (product.asked, product.obtained) == (asked, asked)


def test_a_budget_of_nothing_can_be_kept(precise: PrecisionZoo) -> None:
    """If by nothing else, by fp32."""
    assert planned(precise, "vanilla", 0.0).chosen.loss <= 0


def test_the_head_may_be_left_out_and_everything_is_reported(precise: PrecisionZoo) -> None:
    """Without the head there is no unit for it. A plan takes minutes: one sees what for."""
    seen: list[str] = []
    report = planned(precise, "vanilla", LOOSE, head=False, on_progress=lambda doing, _done, _steps: seen.append(doing))
    assert not report.plan.head
    assert {"1/stack/layers/0/attention/qkv", "1/exit/logits"} & {unit.name for unit in report.units} == {
        "1/stack/layers/0/attention/qkv"
    }
    assert {"measuring fp32", "measuring stage 1 in int8", "measuring stage 1 in w4", "measuring the plan"} <= set(seen)
    assert "measuring 1/stack/layers/0/attention/qkv in w4" in seen
    # With such a budget the plan is as fast as any that was measured.
    assert report.chosen.ms_per_token <= min(measured.ms_per_token for measured in report.uniform.values())


def test_settings_that_mean_nothing(precise: PrecisionZoo) -> None:
    """They are refused before anything is measured."""
    seen: list[object] = []
    for budget, choices, reason in (
        (-0.01, {}, r"the budget is -0\.01, expected a share of at least 0, for instance 0\.01 for 1 %"),
        (math.nan, {}, "the budget is nan, expected a share of at least 0"),
        (BUDGET, {"precisions": ("int8", "int3")}, 'unknown precision "int3"; expected one of fp32, fp16, int8, w8, w4'),
    ):
        with pytest.raises(ConfigError, match=reason):
            planned(precise, "vanilla", budget, on_progress=lambda *step: seen.append(step), **choices)
    assert seen == []


def test_a_budget_that_no_plan_keeps(precise: PrecisionZoo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Predictions may be wrong; what was measured decides."""
    monkeypatch.setattr(_Workshop, "_loss", lambda *_: 0.5)
    with pytest.raises(ConfigError, match=r"no plan kept the loss within 2\.000% when measured as a whole; allow more"):
        planned(precise, "vanilla", BUDGET)


def test_too_little_text(precise: PrecisionZoo, tmp_path: Path) -> None:
    """Too little to hold a window out, then too little to calibrate on."""
    full, text = precise["nested"].full, write_text(tmp_path / "text.txt", words=60)
    with pytest.raises(CalibrationError, match=r"the text has \d+ tokens, expected at least 480; give more text"):
        plan_precision(full, [text], BUDGET, threads=1)
    write_text(text, words=110)
    with pytest.raises(CalibrationError, match=r'stage "1\.pre" saw \d+ rows at phase \d in \d+ tokens, expected'):
        plan_precision(full, [text], BUDGET, threads=1)


def test_at_most_so_many_tokens_are_calibrated_and_held_out(precise: PrecisionZoo) -> None:
    """Of 960 tokens, ten windows of 96: eight to calibrate on, two to measure."""
    seen: list[str] = []
    choices = {"settings": CalibrationSettings(max_tokens=960), "windows_measured": 48}
    report = planned(precise, "vanilla", LOOSE, **choices, on_progress=lambda doing, _done, _steps: seen.append(doing))
    assert report.held_out_tokens == 2 * 95
    assert seen[0].startswith(f"calibrating on {8 * 96} tokens")


def test_a_bundle_that_is_not_fp32(precise: PrecisionZoo) -> None:
    """There is nothing to plan from."""
    specimen = precise["vanilla"]
    bundle = specimen.build(Plan(default="w8", cache="fp32"))
    with pytest.raises(ConfigError, match="is w8, expected fp32; calibrate the bundle it was built from"):
        plan_precision(bundle, [specimen.text], BUDGET, threads=1)
