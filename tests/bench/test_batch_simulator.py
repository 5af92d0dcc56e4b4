"""The simulated batch: what can be worked out by hand, and the real one call for call. No test depends on a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import TOKENS, ahead, host_engines, hourglass, info, stage, top_down

from foveal import CapacityError, ConfigError
from foveal.bench.batch_forecast import Cases, forecast_batches
from foveal.bench.batch_service import Arrivals, ClosedLoop, MeasuredBatch, Poisson, Requests, serve
from foveal.bench.batch_simulator import SimulatedBatch
from foveal.bench.environment import read_environment
from foveal.bench.stage_times import StageTimes, TimeCurve
from foveal.contract import InputSpec, StageSpec
from foveal.runtime.batches import batch as batch_module
from foveal.runtime.batches.batch import Batch
from foveal.runtime.batches.phases import Policy
from foveal.runtime.rows import Ids

MS = 1e6


class PerSequence:
    """A call takes 1 ms and 1 more for each sequence, coarse ones ten times that; a token of a prompt 1 ms."""

    def call_ns(self, name: str, slots: int) -> float:
        """By the stage's name."""
        return (1 + slots) * MS * (1 if name == "fine" else 10)

    def chunk_ns(self, name: str, firings: int) -> float:
        """In proportion."""
        return firings * MS if name == "fine" else 0.0


class OfAnything:
    """Some time for every stage and size, none like another."""

    def call_ns(self, name: str, slots: int) -> float:
        """A function of both."""
        return (sum(map(ord, name)) % 13 + 3.25 * slots) * 1e5

    def chunk_ns(self, name: str, firings: int) -> float:
        """Not in proportion."""
        return (sum(map(ord, name)) % 7 + firings**1.1 + 2) * 1e5


TWO_STAGES = (
    stage("fine", 1, [TOKENS]),
    stage("coarse", 4, [InputSpec(kind="window", source="fine", count=4, shift=3)], output_rows=4),
)


def times_of(stages: Sequence[StageSpec], up_to: int = 4) -> StageTimes:
    """Straight lines."""
    curve = TimeCurve([1, up_to], [2 * MS, (1 + up_to) * MS])
    return StageTimes(
        schema_version=1,
        bundle="b",
        graphs="",
        environment=read_environment(),
        threads=1,
        prompt_tokens=4,
        new_tokens=4,
        stages={one.name: curve for one in stages},
        prefill={one.name: TimeCurve([1, 2], [MS, 2 * MS]) for one in stages},
        host=TimeCurve([1], [MS]),
    )


@pytest.mark.parametrize(
    ("policy", "slow", "fast"), [("staggered", 25.0, 25.0), ("aligned", 55.0, 5.0)], ids=["staggered", "aligned"]
)
def test_two_stages_by_hand(policy: Policy, slow: float, fast: float) -> None:
    """Four sequences: a fine call takes 5 ms; a coarse one 20 for one sequence in every step, or 50 for all in every fourth."""
    batch = SimulatedBatch(TWO_STAGES, PerSequence(), 4, policy, prefill_seconds=1e9)
    for _ in range(4):
        batch.join(4)
    found = batch.step([])
    assert batch.now == pytest.approx(16e-3)
    while len(found) < 4:
        found = batch.step(found)
    took = []
    for _ in range(8):
        began = batch.now
        found = batch.step(found)
        took.append((batch.now - began) * 1e3)
    assert sorted(took) == pytest.approx(sorted(2 * [slow, fast, fast, fast]))
    assert sum(took) == pytest.approx(2 * {"staggered": 100, "aligned": 70}[policy])


def test_latencies_of_a_closed_loop_by_hand() -> None:
    """One client: 4 ms for the prompt, then fine calls of 2 ms, and a coarse one of 20 in every fourth step."""
    served = serve(SimulatedBatch(TWO_STAGES, PerSequence(), 1, "aligned"), ClosedLoop(1), Requests(4, 5, 50))
    assert sorted(set(np.round(np.array(served.itl_s) * 1e3, 6))) == [2, 22]
    assert set(np.round(np.array(served.ttft_s) * 1e3, 6)) >= {4}
    assert served.tokens == pytest.approx(len(served.itl_s) + len(served.ttft_s))
    assert served.queued == 0


def test_a_prompt_delays_the_others_by_its_budget() -> None:
    """Two sequences; while one decodes, the other's prompt of 400 tokens goes in chunks of about 10 ms."""
    batch = SimulatedBatch(TWO_STAGES[:1], PerSequence(), 2, "staggered", prefill_seconds=10e-3)
    batch.join(32)
    ready = batch.step([])
    batch.join(400)
    steps = 0
    while len(ready) < 2:
        began = batch.now
        ready = batch.step(ready)
        steps += 1
        assert 2 < (batch.now - began) * 1e3 < 2 + 12
    assert steps == pytest.approx(40, abs=2)


class Clock:
    """Stands still until something takes time."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        """Seconds."""
        return self.now


class TimedDecoder:
    """A batch's decoder, whose calls move the clock on by what they are said to take."""

    def __init__(self, inner: Any, clock: Clock, times: OfAnything) -> None:
        self._inner, self._clock, self._times = inner, clock, times

    def step(self, slots: Ids, positions: Ids) -> Any:
        """By the sequences of every engine call."""
        return self._watched(lambda: self._inner.step(slots, positions), self._times.call_ns)

    def prefill(self, slot: int, position: int, tokens: int, wanted: Ids) -> Any:
        """By its firings."""
        return self._watched(lambda: self._inner.prefill(slot, position, tokens, wanted), self._times.chunk_ns)

    def _watched(self, run: Callable[[], Any], ns_of: Callable[[str, int], float]) -> Any:
        def take(spec: StageSpec, size: int, _ns: int) -> None:
            self._clock.now += ns_of(spec.name, size) * 1e-9

        self._inner.observer = take
        found = run()
        self._inner.observer = None
        return found


class OnTheClock(MeasuredBatch):
    """The real batch in a time of its own."""

    def __init__(self, batch: Batch, clock: Clock) -> None:
        super().__init__(batch, 0)
        self._clock = clock

    @property
    def now(self) -> float:
        """The clock's."""
        return self._clock.now

    def wait(self, until: float) -> None:
        """Takes no time of anybody's."""
        self._clock.now = max(self._clock.now, until)


def arrivals(slots: int, rate: float | None) -> Arrivals:
    """The same for both."""
    return ClosedLoop(slots) if rate is None else Poisson(rate, 5)


@settings(deadline=None)
@given(
    st.one_of(
        st.builds(hourglass, st.integers(2, 4), st.integers(2, 4)),
        st.builds(top_down, st.integers(2, 8)),
        st.builds(ahead, st.integers(2, 4), st.integers(2, 4)),
    ),
    st.sampled_from(["staggered", "aligned"]),
    st.integers(1, 7),
    st.sampled_from([None, 3.0, 40.0]),
    st.integers(1, 40),
    st.integers(1, 20),
    st.sampled_from([0.0, 0.005, 1.0]),
)
def test_the_real_batch_does_the_same(
    program: Any, policy: Policy, slots: int, rate: float | None, prompt: int, new: int, prefill_seconds: float
) -> None:
    """Every token of every request at the same time, if calls take the same."""
    requests, times, clock = Requests(prompt, new, 25), OfAnything(), Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_module, "time", SimpleNamespace(perf_counter=clock.perf_counter))
        with Batch(host_engines(program), info(), slots, policy=policy, prefill_seconds=prefill_seconds) as batch:
            batch.decoder = TimedDecoder(batch.decoder, clock, times)  # type: ignore[assignment]
            batch.decoder.close = lambda: None  # type: ignore[method-assign]
            real = serve(OnTheClock(batch, clock), arrivals(slots, rate), requests)
    simulated = serve(SimulatedBatch(program, times, slots, policy, prefill_seconds), arrivals(slots, rate), requests)
    assert simulated.itl_s == pytest.approx(real.itl_s)
    assert simulated.ttft_s == pytest.approx(real.ttft_s)
    assert (simulated.tokens, simulated.queued) == (real.tokens, real.queued)
    assert (simulated.seconds, simulated.busy_s) == pytest.approx((real.seconds, real.busy_s))


def test_the_same_seed_is_the_same_forecast() -> None:
    """And another is another."""

    def tokens(seed: int) -> list[Any]:
        cases = Cases((1, 4), rates=(20.0,), seed=seed)
        found = forecast_batches(TWO_STAGES, times_of(TWO_STAGES), cases, Requests(4, 8, 300), context=96)
        return [row.forecast for row in found.rows if row.rate is not None]

    assert tokens(1) == tokens(1)
    assert tokens(1) != tokens(2)


def test_poisson_arrivals_come_at_their_rate() -> None:
    """A thousand seconds of them; each once, in order."""
    arrivals = Poisson(7.0, 0)
    times = [time for second in range(1, 1001) for time, _ in arrivals.due(float(second), 0)]
    assert len(times) == pytest.approx(7000, rel=0.05)
    assert times == sorted(times)
    assert all(time <= second for time, second in zip(times[-1:], [1000.0], strict=True))


def test_more_requests_than_are_served_wait() -> None:
    """And it is said how many."""
    found = forecast_batches(TWO_STAGES, times_of(TWO_STAGES), Cases((2,), rates=(1000.0,)), Requests(4, 8, 200), context=96)
    full = found.rows[-1].forecast
    assert full.queued > 100
    assert full.in_use > 0.5


def test_calls_beyond_what_was_measured_are_told() -> None:
    """8 sequences from times of 4; no slots without a case, no measurement without a model."""
    found = forecast_batches(
        TWO_STAGES, times_of(TWO_STAGES), Cases((4, 8), prefill_seconds=1.0), Requests(4, 8, 50), context=96
    )
    assert [(row.slots, row.policy, row.largest_call) for row in found.rows] == [
        (4, "staggered", 4),
        (4, "aligned", 4),
        (8, "staggered", 8),
        (8, "aligned", 8),
    ]
    assert all(row.measured is None for row in found.rows)


@pytest.mark.parametrize(
    ("cases", "sentence"),
    [
        ({"slots": ()}, "got no number of slots"),
        ({"slots": (4, 0)}, "slots must be at least 1, got 0"),
        ({"slots": (4,), "policies": ("random",)}, 'got policy "random", expected one of'),
        (
            {"slots": (4,), "rates": (1.0, 0.0)},
            "the rate of requests is 0.0, expected requests per second from 1e-06 to 100000",
        ),
        ({"slots": (4,), "rates": (-1.0,)}, "the rate of requests is -1.0, expected requests per second from 1e-06 to 100000"),
        (
            {"slots": (4,), "rates": (float("nan"),)},
            "the rate of requests is nan, expected requests per second from 1e-06 to 100000",
        ),
        ({"slots": (4,), "prefill_seconds": -1.0}, "prefill_seconds must be at least 0, got -1.0"),
    ],
)
def test_cases_that_there_are_not(cases: dict[str, Any], sentence: str) -> None:
    """Each its own sentence."""
    with pytest.raises(ConfigError, match=sentence):
        Cases(**cases)


@pytest.mark.parametrize("name", ["prompt_tokens", "new_tokens", "steps"])
def test_requests_for_nothing(name: str) -> None:
    """There would be no figures."""
    with pytest.raises(ConfigError, match=f"{name} must be at least 1, got 0"):
        Requests(**{"prompt_tokens": 1, "new_tokens": 1, "steps": 1, name: 0})


def test_requests_longer_than_the_context() -> None:
    """Said before anything is simulated."""
    with pytest.raises(CapacityError, match="a context of 96 tokens, got a prompt of 90 and 7 new tokens; lower one"):
        forecast_batches(TWO_STAGES, times_of(TWO_STAGES), Cases((4,)), Requests(90, 7, 5), context=96)
