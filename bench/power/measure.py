"""Measure what a session's decoding costs in energy."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ...runtime.session import Session
from ..decode import Load
from .energy import MIN_WINDOW_S, PowerWindow, summarise_window
from .result import PowerResult, PowerSetup, power_result
from .sampler import PowerSampler
from .sensor import PowerSensor


@dataclass(frozen=True)
class PowerTimes:
    """Seconds: of decoding per model; of idling, after a while in which clocks and threads calm down."""

    window_s: float = MIN_WINDOW_S + 1
    idle_s: float = 5.0
    settle_s: float = 2.0


def measure_all(
    sensor: PowerSensor, sessions: Sequence[Session], load: Load, times: PowerTimes, begins: Callable[[str], None]
) -> tuple[PowerSetup, list[PowerResult]]:
    """The idle baseline, then every session decoding on its own; `begins` is told what is about to be measured.

    The sensor is read only here: reading it would disturb what is timed.

    Raises:
        ConfigError: the sensor gives no reading.
    """
    with PowerSampler(sensor) as sampler:
        begins(f"power: idle for {times.idle_s:.0f} s")
        setup = measure_idle(sampler, times)
        results = []
        for number, session in enumerate(sessions, 1):
            begins(f"power: model {number} decodes for {times.window_s:.0f} s")
            results.append(measure_power(sampler, setup, session, load, times))
    return setup, results


def measure_idle(sampler: PowerSampler, times: PowerTimes) -> PowerSetup:
    """The baseline: this process does nothing."""
    time.sleep(times.settle_s)
    began = time.monotonic_ns()
    time.sleep(times.idle_s)
    return PowerSetup(sensor=sampler.info, idle=_window(sampler, began, time.monotonic_ns()))


def measure_power(sampler: PowerSampler, setup: PowerSetup, session: Session, load: Load, times: PowerTimes) -> PowerResult:
    """Decode without a pause: the load's new tokens again and again after one prompt, rewound each time."""
    rng = np.random.default_rng(load.seed)
    session.reset()
    logits = session.advance(rng.integers(0, session.model.vocab_size, (session.batch, load.prompt_tokens)), last_only=True)
    tokens, began = 0, time.monotonic_ns()
    while time.monotonic_ns() - began < times.window_s * 1e9:
        if session.position == load.prompt_tokens + load.new_tokens:
            session.rewind(load.new_tokens)
        logits = session.advance(logits[:, 0].argmax(-1)[:, None], last_only=True)
        tokens += session.batch
    return power_result(_window(sampler, began, time.monotonic_ns()), tokens, setup.idle)


def _window(sampler: PowerSampler, began_ns: int, ended_ns: int) -> PowerWindow:
    return summarise_window(sampler.between(began_ns, ended_ns), began_ns, ended_ns)
