"""Forecasts of batches: sequences, policies and arrivals, from what calls take; and the batch itself beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from ..contract import StageSpec
from ..errors import ConfigError
from ..progress import Progress
from ..runtime.batches.batch import PREFILL_SECONDS
from ..runtime.batches.phases import Policy
from ..runtime.model import Model
from .batch_rounds import ALL_POLICIES, checked_policies
from .batch_service import Arrivals, ClosedLoop, MeasuredBatch, Poisson, Requests, Served, serve
from .batch_simulator import SimulatedBatch
from .environment import Environment, read_environment
from .stage_times import StageTimes
from .statistics import Summary, summarise

FORECAST_SCHEMA_VERSION = 1


class ServiceFigures(msgspec.Struct, frozen=True, kw_only=True):
    """How requests are served. Tokens per second are of all sequences; `in_use`: the share of slots that decode, over time;
    `queued`: requests without a slot at the end: many of them say that more come than are served."""

    itl_ms: Summary
    ttft_ms: Summary
    tokens_per_s: float
    in_use: float
    queued: int


class ForecastRow(msgspec.Struct, frozen=True, kw_only=True):
    """One case. `rate`: Poisson arrivals per second, null: a closed loop of as many clients as slots.

    `largest_call`: of how many sequences the largest call was, to be held against the largest that was measured. `measured` is
    null where the batch was not run.
    """

    slots: int
    policy: Policy
    rate: float | None
    forecast: ServiceFigures
    largest_call: int
    measured: ServiceFigures | None = None


class BatchForecast(msgspec.Struct, frozen=True, kw_only=True):
    """All cases of one model, and the times they are made from.

    `expected`: of stages whose firings the data decides, after how many tokens on average they are expected to fire; forecasts
    draw them by chance.
    """

    schema_version: int
    command: str
    environment: Environment
    prompt_tokens: int
    new_tokens: int
    steps: int
    seed: int
    prefill_seconds: float
    times: StageTimes
    rows: list[ForecastRow]
    expected: dict[str, float] = {}


@dataclass(frozen=True)
class Cases:
    """Which batches are asked about: every number of slots by every policy, in a closed loop and at every rate.

    Raises:
        ConfigError: none of something, less than one slot, a policy that there is not, a rate that is not above 0, or a time
            below 0.
    """

    slots: tuple[int, ...]
    policies: tuple[Policy, ...] = ALL_POLICIES
    rates: tuple[float, ...] = ()
    seed: int = 0
    prefill_seconds: float = PREFILL_SECONDS

    def __post_init__(self) -> None:
        if not self.slots:
            raise ConfigError("got no number of slots, expected at least one")
        for slots in self.slots:
            if slots < 1:
                raise ConfigError(f"slots must be at least 1, got {slots}")
        checked_policies(self.policies)
        for rate in self.rates:
            Poisson(rate, self.seed)
        if not self.prefill_seconds >= 0:
            raise ConfigError(f"prefill_seconds must be at least 0, got {self.prefill_seconds}")

    def __iter__(self) -> Iterator[tuple[int, Policy, float | None]]:
        """Slots, policy and rate of each; None: a closed loop."""
        rates: tuple[float | None, ...] = (None, *self.rates)
        return ((slots, policy, rate) for rate in rates for slots in self.slots for policy in self.policies)


def forecast_batches(
    stages: Sequence[StageSpec],
    times: StageTimes,
    cases: Cases,
    requests: Requests,
    *,
    context: int,
    measured_with: Model | None = None,
    command: str = "",
    on_progress: Progress | None = None,
) -> BatchForecast:
    """Simulate every case; with a model, also run it in a closed loop wherever all its calls were measured.

    Args:
        stages: of the model.
        times: of its calls, of this machine or of another.
        cases: what is asked about.
        requests: what each request asks for, and how long all are watched.
        context: tokens that the model has positions for.
        measured_with: the model, to measure beside.
        command: what the user typed, for the record.
        on_progress: called before each case.

    Raises:
        CapacityError: requests longer than the context, or a batch's state finds no room.
    """
    requests.require_room(context)
    environment, rows, each = read_environment(), [], list(cases)
    for number, (slots, policy, rate) in enumerate(each):
        if on_progress is not None:
            on_progress(f"{slots} {policy}", number, len(each))
        simulated = SimulatedBatch(stages, times, slots, policy, cases.prefill_seconds, cases.seed)
        figures = _figures(serve(simulated, _arrivals(slots, rate, cases.seed), requests), slots)
        measured = None
        if measured_with is not None and rate is None and slots <= times.largest:
            measured = measure_closed_loop(measured_with, slots, policy, cases, requests)
        rows.append(
            ForecastRow(
                slots=slots,
                policy=policy,
                rate=rate,
                forecast=figures,
                largest_call=simulated.largest_call,
                measured=measured,
            )
        )
    return BatchForecast(
        schema_version=FORECAST_SCHEMA_VERSION,
        command=command,
        environment=environment,
        prompt_tokens=requests.prompt_tokens,
        new_tokens=requests.new_tokens,
        steps=requests.steps,
        seed=cases.seed,
        prefill_seconds=cases.prefill_seconds,
        times=times,
        rows=rows,
        expected={stage.name: stage.tokens_per_firing for stage in stages if stage.clock is not None},
    )


def measure_closed_loop(model: Model, slots: int, policy: Policy, cases: Cases, requests: Requests) -> ServiceFigures:
    """The batch itself, with as many clients as it has slots.

    Raises:
        CapacityError, EngineMismatchError: as `Batch`.
    """
    with model.batch(slots, requests.prompt_tokens + requests.new_tokens, policy, cases.prefill_seconds) as batch:
        return _figures(serve(MeasuredBatch(batch, cases.seed), ClosedLoop(slots), requests), slots)


def _arrivals(slots: int, rate: float | None, seed: int) -> Arrivals:
    return ClosedLoop(slots) if rate is None else Poisson(rate, seed)


def _figures(served: Served, slots: int) -> ServiceFigures:
    return ServiceFigures(
        itl_ms=summarise([seconds * 1e3 for seconds in served.itl_s], "ms"),
        ttft_ms=summarise([seconds * 1e3 for seconds in served.ttft_s], "ms"),
        tokens_per_s=served.tokens / served.seconds,
        in_use=served.busy_s / served.seconds / slots,
        queued=served.queued,
    )
