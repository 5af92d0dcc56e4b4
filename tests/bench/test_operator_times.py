"""What operators take: read from ONNX Runtime's trace, summed by stage and type, weighted by how often a stage fires."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from specimens import Zoo

from foveal import ConfigError
from foveal.bench.onnxruntime_trace import runs_of
from foveal.bench.operator_times import BETWEEN, Profile, profile


def event(name: str, ts: int, dur: int, operator: str = "") -> dict[str, Any]:
    """As ONNX Runtime writes it."""
    return {"name": name, "cat": "Node" if operator else "Session", "ts": ts, "dur": dur, "args": {"op_name": operator}}


def test_a_trace() -> None:
    """Operators belong to the run that they lie in; what holds others counts without them; the rest is between operators."""
    events = [
        event("session_initialization", 0, 50),
        event("a_kernel_time", 110, 20, "MatMul"),
        event("inner_kernel_time", 145, 30, "GroupQueryAttention"),
        event("SequentialExecutor::Execute", 141, 36),
        event("outer_kernel_time", 140, 40, "If"),
        event("model_run", 100, 100),
        event("a_kernel_time", 310, 25, "MatMul"),
        event("model_run", 300, 40),
    ]
    first, second = runs_of(events)
    assert list(first.operators) == [("MatMul", 20), ("If", 10), ("GroupQueryAttention", 30)]
    assert first.between_us == 100 - 20 - 40
    assert second == ([("MatMul", 25)], 15)


@pytest.fixture(scope="module")
def measured(zoo: Zoo) -> Profile:
    """A model of strides 1, 2 and 8."""
    return profile(zoo["nested"].bundle, "cpu", tokens=20, threads=1)


def test_stages_count_as_often_as_they_fire(measured: Profile) -> None:
    """Over whole periods: 16 of 20 tokens."""
    assert measured.tokens == 16
    assert {stage.name: stage.fires_per_token for stage in measured.stages} == {
        "1.pre": 1,
        "2.pre": 0.5,
        "8": 0.125,
        "2.post": 0.5,
        "1.post": 1,
    }
    for stage in measured.stages:
        (between,) = (one for one in stage.operators if one.operator == BETWEEN)
        assert between.calls_per_token == stage.fires_per_token
        assert any(one.calls_per_token >= stage.fires_per_token for one in stage.operators if "MatMul" in one.operator)


def test_shares_are_of_all_stages(measured: Profile) -> None:
    """They add up to 1, by stage and by operator, and are sorted."""
    assert sum(stage.share for stage in measured.stages) == pytest.approx(1)
    for stage in measured.stages:
        assert sum(one.share for one in stage.operators) == pytest.approx(stage.share)
        assert sum(one.us_per_token for one in stage.operators) == pytest.approx(stage.us_per_token)
        assert list(stage.operators) == sorted(stage.operators, key=lambda one: -one.us_per_token)
    assert measured.us_per_token == pytest.approx(sum(stage.us_per_token for stage in measured.stages))
    assert msgspec.json.decode(msgspec.json.encode(measured), type=Profile) == measured


def test_every_family_has_a_profile(zoo: Zoo) -> None:
    """A context of one period, too."""
    for name in ("vanilla", "linear"):
        assert profile(zoo[name].bundle, "cpu", tokens=8, threads=1).us_per_token > 0


def test_targets_that_have_none(zoo: Zoo) -> None:
    """Nobody times cuda's operators, and engines that are not there can't be timed."""
    with pytest.raises(ConfigError, match="operators are timed on targets cpu, tensorrt and tensorrt-rtx, got cuda"):
        profile(zoo["vanilla"].bundle, "cuda")
    with pytest.raises(ConfigError, match="has no engines for tensorrt; add them: foveal build .* --target tensorrt"):
        profile(zoo["vanilla"].bundle, "tensorrt")


@pytest.mark.parametrize("threads", [0, -1, "2"])
def test_threads_that_nothing_can_have(threads: Any, zoo: Zoo) -> None:
    """None at all is not the default."""
    with pytest.raises(ConfigError, match="threads must be"):
        profile(zoo["nested"].bundle, "cpu", threads=threads)
