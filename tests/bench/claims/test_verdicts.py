"""Whether a claim holds, and for what: counted by hand."""

from __future__ import annotations

import msgspec
import pytest
from claim_results import DEEP, VANILLA, firing_model, group, memory_case, probe, rare_model, speed_case

from foveal.bench.claims.firing import verdict_on_firing
from foveal.bench.claims.memory import baseline_of, change, verdict_on_memory
from foveal.bench.claims.order import verdict_on_order
from foveal.bench.claims.rare_words import verdict_on_rare_words
from foveal.bench.claims.speed import noise_in, verdict_on_speed


@pytest.mark.parametrize(
    ("at_512", "at_2048", "answer", "said"),
    [
        (1.31, 1.30, "holds", "in fp32 at pasts of 512, 2,048 tokens (1.31, 1.30)"),
        (1.29, 1.40, "holds in part", "in fp32 at pasts of 2,048 tokens (1.29, 1.40)"),
        (1.29, 0.90, "does not hold", "in fp32 at no length (1.29, 0.90)"),
    ],
)
def test_speed(at_512: float, at_2048: float, answer: str, said: str) -> None:
    """30 % faster is 1.30 times the tokens per second."""
    cases = [speed_case(DEEP, 512, (at_512,)), speed_case(DEEP, 2048, (at_2048,)), speed_case(VANILLA, 512)]
    verdict = verdict_on_speed(cases)
    assert (verdict.answer, f"{DEEP} {said}." in verdict.sentence) == (answer, True)


def test_rounds_that_differ() -> None:
    """By 5 %, by 20 % and by 50 % of their median; quiet ones say nothing."""
    quiet, loud, louder = ([9.75, 10.0, 10.25], [9.0, 10.0, 11.0], [8.0, 10.0, 13.0])
    cases = [msgspec.structs.replace(speed_case(DEEP, 512), tokens_per_s_by_round=speeds) for speeds in (louder, quiet, loud)]
    assert noise_in(cases[1:2]) == []
    assert noise_in(cases) == [
        "in 2 of 3 rows the rounds differ by more than 10%, half of all rows' by 20% or more, at most by 50%"
    ]


def test_memory_is_compared_part_by_part() -> None:
    """2000 bytes of weights against 1000 are twice as many; 70 of state against 100 are 30 % less."""
    deep, vanilla = memory_case(DEEP, 512, 2000, 70, 80), memory_case(VANILLA, 512, 1000, 100, 100)
    assert change(deep, vanilla, "weights") == 1.0
    assert change(deep, vanilla, "state") == pytest.approx(-0.3)
    assert change(deep, vanilla, "weights and state") == pytest.approx(2070 / 1100 - 1)
    assert change(deep, vanilla, "working memory") == pytest.approx(-0.2)
    assert change(deep, vanilla, "peak") == pytest.approx(2200 / 1250 - 1)
    verdict = verdict_on_memory([deep, vanilla], [VANILLA])
    assert verdict.answer == "holds in part"
    assert verdict.sentence == f"23% smaller than {VANILLA}: {DEEP}: state at 512 tokens."


def test_memory_has_to_be_smaller_than_every_baseline() -> None:
    """70 is 30 % less than 100 and 13 % less than 80."""
    cases = [memory_case(DEEP, 512, 10, 70), memory_case(VANILLA, 512, 10, 100), memory_case("vanilla 1@1", 512, 10, 80)]
    verdict = verdict_on_memory(cases, [VANILLA, "vanilla 1@1"])
    assert (verdict.answer, verdict.sentence.endswith(f"{DEEP}: nothing.")) == ("does not hold", True)


def test_memory_that_is_not_known() -> None:
    """Is left out."""
    cases = [memory_case(DEEP, 512, 5, 50, None), memory_case(VANILLA, 512, 10, 100)]
    assert change(cases[0], baseline_of(cases, VANILLA, 512), "peak") is None
    assert verdict_on_memory(cases, [VANILLA]).answer == "holds"


@pytest.mark.parametrize(("firings", "expected", "answer"), [(2, 2, "holds"), (8, 2, "does not hold"), (3, 3, "does not hold")])
def test_firing(firings: int, expected: int, answer: str) -> None:
    """A stage of stride 4 fires twice in 8 tokens, and as its specification says."""
    verdict = verdict_on_firing([firing_model(firings, expected)])
    assert verdict.answer == answer
    assert f"in 8 tokens the coarsest stage fired {firings} times, and of 2 layers 1.25 ran per token" in verdict.sentence


@pytest.mark.parametrize(
    ("difference", "half_width", "answer"),
    [
        (-0.2, 0.1, "better"),
        (0.2, 0.1, "worse"),
        (-0.1, 0.1, "no difference shown"),
        (-0.2, None, "no difference shown"),
    ],
)
def test_a_difference_is_one_if_its_interval_leaves_zero_out(difference: float, half_width: float | None, answer: str) -> None:
    """A lower loss is better."""
    assert group(difference, half_width).answer == answer


def test_rare_words() -> None:
    """Both the rarest tokens and the rarest words have to be better."""
    better, same = group(-0.2), group(-0.05)
    assert verdict_on_rare_words([rare_model(better, better)]).answer == "holds"
    assert verdict_on_rare_words([rare_model(better, same)]).answer == "holds in part"
    verdict = verdict_on_rare_words([rare_model(same, group(0.2))])
    assert verdict.answer == "does not hold"
    assert (
        "top_down: rarest tokens no difference shown (-0.050 ± 0.100 nats), words worse (+0.200 ± 0.100 nats)"
        in verdict.sentence
    )


@pytest.mark.parametrize(
    ("rises", "settles_at", "answer", "said"),
    [
        ((0.06, 0.04, 0.0), 65, "holds", "below 0.05 nats from 65 tokens on, still above zero 65 to 128 tokens back"),
        ((0.06, 0.00, 0.0), 65, "holds", "below 0.05 nats from 65 tokens on, none is seen further back"),
        ((0.06, 0.06, 0.0), 129, "does not hold", "below 0.05 nats from 129 tokens on"),
        ((0.06, 0.04, 0.06), None, "does not hold", "below 0.05 nats nowhere, still above zero 129 to 256 tokens back"),
    ],
)
def test_order(rises: tuple[float, ...], settles_at: int | None, answer: str, said: str) -> None:
    """Spans that begin beyond 50 tokens count."""
    verdict = verdict_on_order([probe(rises, settles_at)], 50)
    assert (verdict.answer, said in verdict.sentence) == (answer, True)
