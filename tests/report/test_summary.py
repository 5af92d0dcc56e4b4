"""The answers follow from the figures: faster, slower, or neither is shown."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from report_specimens import NAMES

from foveal.report.document import Report
from foveal.report.facts.ratios import ratios_of
from foveal.report.glance import figures_at_a_glance
from foveal.report.lookup import result_of
from foveal.report.numbers import significant
from foveal.report.summary import answers


def answer(report: Report, question: str) -> str:
    """To one of the questions."""
    return next(each.answer for each in answers(report) if each.question == question)


def running_at(report: Report, rates: dict[str, Sequence[float]]) -> Report:
    """The report, had the rounds of models gone so."""
    models = []
    for model in report.measured.models:
        rounds = list(rates[model.name])
        latency = msgspec.structs.replace(
            model.latency, decode_tokens_per_s_by_round=rounds, decode_tokens_per_s=sorted(rounds)[len(rounds) // 2]
        )
        models.append(msgspec.structs.replace(model, latency=latency))
    measured = msgspec.structs.replace(report.measured, models=models)
    return msgspec.structs.replace(report, measured=measured, ratios=ratios_of(models))


@pytest.mark.parametrize(
    ("mine", "sentence", "tile"),
    [
        (
            (190, 200, 210.526),
            "That is 2.00 times as fast as plain (2@1, fp32) (95 %: 1.76 to 2.27). It runs",
            "2.00 times as fast",
        ),
        (
            (88, 90, 92.045),
            "That is slower, at 0.90 times the rate of plain (2@1, fp32) (95 %: 0.85 to 0.95)",
            "0.90 times as fast",
        ),
        (
            (90, 110, 120),
            "That is not shown to be faster or slower than plain (2@1, fp32) (1.06 times; 95 %: 0.73 to 1.53).",
            "no difference shown",
        ),
    ],
)
def test_is_it_faster(mine: tuple[int, ...], sentence: str, tile: str, report: Report) -> None:
    """It is, it is not, or the interval leaves it open."""
    found = running_at(report, {NAMES[0]: mine, NAMES[1]: (299, 300, 301.003), NAMES[2]: (100, 100, 100)})
    said = answer(found, "Is it faster?")
    assert sentence in said
    assert "In w8 it is 3.00 times as fast as plain in fp32" in said
    assert figures_at_a_glance(found)[1].value == tile


def test_there_is_nothing_to_compare_with(report: Report) -> None:
    """It is said what to name."""
    measured = msgspec.structs.replace(report.measured, models=report.measured.models[:2])
    alone = msgspec.structs.replace(report, models=report.models[:2], measured=measured)
    single = running_at(report, {name: (rate,) for name, rate in zip(NAMES, (100, 300, 100), strict=True)})
    assert "(1.00 times; a single round, so no interval)" in answer(single, "Is it faster?")
    assert "There is no other model to compare it with: name one behind it" in answer(alone, "Is it faster?")
    one = msgspec.structs.replace(
        alone, models=report.models[:1], measured=msgspec.structs.replace(measured, models=measured.models[:1])
    )
    assert "Only one precision of it was given. Build others with foveal build" in answer(one, "What does each precision cost?")


def test_losses_that_were_not_measured(report: Report) -> None:
    """It is said how to get them."""
    found = msgspec.structs.replace(report, losses=[], losses_missing="no text was given; give one: --text F")
    assert answer(found, "What does each precision cost?").endswith("was not measured: no text was given; give one: --text F.")


@pytest.mark.parametrize(
    ("share", "sentence"),
    [
        (1.3, "That is more than memory gives: some of it stays in the processor's caches"),
        (0.9, "Memory bandwidth is the limit"),
        (0.4, "So memory bandwidth is not what limits it here"),
    ],
)
def test_what_limits_it(share: float, sentence: str, report: Report) -> None:
    """By the share of the bandwidth that is reached."""
    first, *others = report.measured.models
    assert first.roofline is not None
    near = msgspec.structs.replace(first, roofline=msgspec.structs.replace(first.roofline, share=share))
    measured = msgspec.structs.replace(report.measured, models=[near, *others])
    assert sentence in answer(msgspec.structs.replace(report, measured=measured), "What limits its speed here?")


def test_time_and_parameters_of_coarse_stages(report: Report) -> None:
    """Shares of both, from the figures."""
    shares = dict.fromkeys(report.time_shares[NAMES[0]], 0.1)
    names = [stage.name for stage in report.models[0].stages if stage.stride > 1]
    said = answer(msgspec.structs.replace(report, time_shares={NAMES[0]: shares}), "Where does the time go?")
    assert f"The coarse stages ({', '.join(names)}) hold" in said
    assert f"and take {len(names) * 10} % of the time" in said


def test_a_model_of_one_stage(report: Report) -> None:
    """Its time has no parts."""
    plain = msgspec.structs.replace(report, subject=NAMES[2], models=[report.models[2], *report.models[:2]])
    mean = result_of(report, NAMES[2]).latency.itl_ms.mean
    assert mean is not None
    assert answer(plain, "Where does the time go?").startswith("It has one stage, which runs at every token:")


def test_devices_are_told_what_was_not_run(report: Report) -> None:
    """The memory that must be free, the most that bandwidth allows, and no word on a GPU."""
    said = answer(report, "Will it fit my device?")
    assert "GPU: not run" in said
    assert "Each GB/s of a device's memory bandwidth allows at most" in said


def test_every_known_device_is_named(report: Report) -> None:
    """Whether it fits, by the forecast's rows: with its rate where it does, with what it takes where it does not."""
    said = answer(report, "Will it fit my device?")
    mine = [row for row in report.forecasts if row.name == report.subject]
    assert all(f"{row.device} ({significant(row.tokens_per_s)} tokens/s)" in said for row in mine)
    assert "It fits: Jetson Orin Nano 4GB (" in said
    assert "does not fit" not in said
    first, second, *others = mine
    rows = [msgspec.structs.replace(first, fits=False, memory=5e9), msgspec.structs.replace(second, fits=None), *others]
    said = answer(msgspec.structs.replace(report, forecasts=rows), "Will it fit my device?")
    assert f"it fits {len(others)} of {len(mine)} known devices" in said
    assert f"It does not fit: {first.device} (it takes 5,000 MB there)." in said
    assert f"How much memory these have is not known: {second.device}." in said
