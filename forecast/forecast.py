"""What a model would do on a device: the sum of it all, always a forecast."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from ..errors import CapacityError, ConfigError
from ..models.sizes import require_size
from .caching import steps_behind
from .devices import AnyDevice, MeasuredDevice, Reach
from .memory import Memory, memory_of
from .prompt_time import prompt_seconds
from .rates import Rates
from .shapes import Shape
from .step_time import Bound, StepTime, mean_of, step_times, worst_of


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of the model.

    Attributes:
        context: tokens that each sequence has room for.
        prompt_tokens: read first; decoding is forecast right behind them.
        batch: sequences that decode in step.
        native: on a CPU, by native steps rather than by ONNX Runtime's graphs.

    Raises:
        ConfigError: less than one of anything, or more than `models.sizes.LARGEST`.
        CapacityError: a prompt that leaves no room for a token.
    """

    context: int
    prompt_tokens: int
    batch: int = 1
    native: bool = True

    def __post_init__(self) -> None:
        for name in ("context", "prompt_tokens", "batch"):
            require_size(name, getattr(self, name))
        if self.prompt_tokens >= self.context:
            raise CapacityError(
                f"a prompt of {self.prompt_tokens} tokens leaves no room in a context of {self.context}; give a shorter "
                "prompt, or a longer context"
            )


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """A forecast, never a measurement. Times are in milliseconds.

    Attributes:
        device: its name or title; `device_is_measured`: whether its rates were measured, or are a data sheet's times what is
            assumed to be reached.
        tokens_per_s: of all sequences, while they decode; `at_least`, `at_most`: by the worst and the best that is assumed of
            the device; equal where its rates were measured.
        step_ms, worst_step_ms: mean over a period of firing, and the step in which most stages fire; `step`: what the mean one
            goes to, in seconds.
        bound, worst_bound: what takes most of either.
        first_token_ms: from a prompt to its first token; null where the device's arithmetic is not known.
        joules_per_token: at most, if the device takes all the power that it may; null where that is not known.
    """

    device: str
    device_is_measured: bool
    model: str
    hierarchy: str
    precision: str
    parameters: int
    layer_equivalents: float
    work: Work
    tokens_per_s: float
    at_least: float
    at_most: float
    step_ms: float
    worst_step_ms: float
    step: StepTime
    bound: Bound
    worst_bound: Bound
    first_token_ms: float | None
    memory: Memory
    joules_per_token: float | None
    is_forecast: bool = True


def forecast(shape: Shape, device: AnyDevice, work: Work, name: str | None = None) -> Forecast:
    """Forecast one model on one device.

    Args:
        shape: as engines of the device's kind hold it.
        device: whose rates.
        work: what is asked.
        name: of the device, for people; its title if not given.

    Raises:
        ConfigError: a shape for another kind of engines, or rates that are not known.
    """
    if shape.on_gpu != device.on_gpu:
        kinds = {True: "GPUs", False: "CPUs"}
        raise ConfigError(f"the shape is of engines for {kinds[shape.on_gpu]}, the device one of the {kinds[device.on_gpu]}")
    rates = {reach: device.rates(reach, work.native) for reach in _REACHES}
    _require_measured(rates["middle"], shape.precision, device)
    firings = steps_behind(shape, work.prompt_tokens)
    steps = {reach: step_times(firings, shape, rates[reach], work.batch) for reach in _REACHES}
    per_s = {reach: work.batch / mean_of(steps[reach]).seconds for reach in _REACHES}
    mean, worst = mean_of(steps["middle"]), worst_of(steps["middle"])
    prompt = prompt_seconds(shape, rates["middle"], work.prompt_tokens)
    return Forecast(
        device=name or device.title,
        device_is_measured=isinstance(device, MeasuredDevice),
        model=shape.name,
        hierarchy=shape.hierarchy,
        precision=shape.precision,
        parameters=shape.parameters,
        layer_equivalents=shape.layer_equivalents,
        work=work,
        tokens_per_s=per_s["middle"],
        at_least=per_s["low"],
        at_most=per_s["high"],
        step_ms=mean.seconds * 1e3,
        worst_step_ms=worst.seconds * 1e3,
        step=mean,
        bound=mean.bound,
        worst_bound=worst.bound,
        first_token_ms=None if prompt is None else prompt * 1e3,
        memory=memory_of(shape, work.context, work.batch, work.prompt_tokens, device.program_bytes, device.available_bytes),
        joules_per_token=None if device.power is None else device.power / per_s["middle"],
    )


_REACHES: tuple[Reach, ...] = ("low", "middle", "high")


def _require_measured(rates: Rates, precision: str, device: AnyDevice) -> None:
    if precision not in rates.engines:
        listed = ", ".join(rates.engines) or "none"
        raise ConfigError(f"{device.title} was measured for {listed}, expected {precision}; measure it again in that precision")


def forecast_rows(shapes: Iterable[Shape], devices: dict[str, AnyDevice], work: Work) -> list[Forecast]:
    """A row for each device: of the shapes, whichever is for its kind of engines."""
    by_kind = {shape.on_gpu: shape for shape in shapes}
    return [forecast(by_kind[device.on_gpu], device, work, name) for name, device in devices.items()]
