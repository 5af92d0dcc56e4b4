"""Which steps fire a coarse stage: the specification says."""

from __future__ import annotations

import pytest

from foveal.bench.decode import DecodeSamples
from foveal.bench.result import latency_of
from foveal.contract import Fires, InputSpec, StageSpec
from foveal.forecast.firings import coarse_steps


@pytest.mark.parametrize(("fires", "firing"), [("open", [0, 4, 8]), ("close", [3, 7]), ("ahead", [3, 7])])
def test_steps_in_which_a_coarse_stage_fires(fires: Fires, firing: list[int]) -> None:
    """A step of token t takes t ms here."""
    tokens = {"inputs": (InputSpec(kind="tokens"),), "width": 4, "layers": 1, "parameters": 0}
    stages = [
        StageSpec(name="4", stride=4, fires=fires, output="hidden", **tokens),
        StageSpec(name="1", stride=1, output="logits", **tokens),
    ]
    steps = range(10)
    samples = DecodeSamples(
        [1_000_000], [step * 1_000_000 for step in steps], list(steps), coarse_steps(stages, {}, list(steps)), [], [1.0]
    )
    latency = latency_of(samples, 1)
    assert latency.itl_fire_ms.count == len(firing)
    assert latency.itl_fire_ms.mean == pytest.approx(sum(firing) / len(firing))
    assert latency.itl_nofire_ms.count == 10 - len(firing)
