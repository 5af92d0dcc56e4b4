"""The sum of it all, by hand; and what a forecast may never say."""

from __future__ import annotations

import msgspec
import pytest
from forecasting import device, shape, stage

from foveal.errors import CapacityError, ConfigError
from foveal.forecast.devices import Figure, device_named, known_devices
from foveal.forecast.forecast import Work, forecast, forecast_rows
from foveal.forecast.model_shapes import shape_of_hierarchy
from foveal.models.sizes import Sizes

ONE = shape(stage("1"))
WORK = Work(context=64, prompt_tokens=8)
L4 = known_devices()["l4"]


def test_a_forecast_by_hand() -> None:
    """A step of 27 s (test_step_time.py), of a machine that was measured: no range, and no watts."""
    found = forecast(ONE, device(), WORK)
    assert found.tokens_per_s == found.at_least == found.at_most == 1 / 27
    assert (found.step_ms, found.worst_step_ms, found.bound) == (27e3, 27e3, "memory bandwidth")
    assert found.device_is_measured
    assert found.joules_per_token is None
    assert found.is_forecast


def test_a_data_sheet_gives_a_range_and_joules_at_most() -> None:
    """By what is assumed at worst and at best; all the watts that it may take, for the time of a token."""
    found = forecast(shape_of_hierarchy("12@1", Sizes(), "fp16", on_gpu=True), L4, Work(context=1024, prompt_tokens=512))
    assert found.at_least < found.tokens_per_s < found.at_most
    assert found.joules_per_token == pytest.approx(72 / found.tokens_per_s)
    assert not found.device_is_measured


def test_no_device_beats_its_memory() -> None:
    """At best, weights alone take longer at the maker's whole bandwidth."""
    for name, known in known_devices().items():
        model = shape_of_hierarchy("12@1", Sizes(), "fp32", known.on_gpu)
        found = forecast(model, known, Work(context=1024, prompt_tokens=512), name)
        assert found.at_most < (known.bandwidth_gb_s.value or 0) * 1e9 / model.stages[0].weight_bytes


@pytest.mark.parametrize("name", ["orin-nano-8gb-super", "rtx-4090", "raspberry-pi-5"])
def test_order_of_what_may_never_be_otherwise(name: str) -> None:
    """Firing less is faster; longer contexts and larger batches take longer; narrower weights are never slower."""
    known = device_named(name)

    def rate(hierarchy: str = "12@1", precision: str = "fp32", prompt: int = 512, batch: int = 1) -> float:
        model = shape_of_hierarchy(hierarchy, Sizes(), precision, known.on_gpu)
        return forecast(model, known, Work(context=1024, prompt_tokens=prompt, batch=batch)).tokens_per_s

    assert rate("2@1 8@4 2@1") > rate()
    assert rate(prompt=16) >= rate(prompt=1000)
    assert rate(precision="w4") > rate(precision="w8") > rate()
    assert rate() < rate(batch=4) < 4 * rate()


def test_what_is_not_known_is_not_made_up() -> None:
    """No arithmetic: no first token. No watts: no joules. No memory: nobody knows whether it fits."""
    unknown = {name: Figure(None, "unknown") for name in ("fp32_tflops", "watts", "memory_gb")}
    found = forecast(shape_of_hierarchy("1@1", Sizes(), on_gpu=True), msgspec.structs.replace(L4, **unknown), WORK)
    assert (found.first_token_ms, found.joules_per_token, found.memory.fits) == (None, None, None)


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"batch": 0}, ConfigError, "batch must be at least 1, got 0"),
        ({"context": 0}, ConfigError, "context must be at least 1, got 0"),
        ({"prompt_tokens": 64}, CapacityError, "a prompt of 64 tokens leaves no room in a context of 64"),
    ],
)
def test_work_that_is_none_is_refused(given: dict[str, int], error: type[Exception], says: str) -> None:
    """In one sentence."""
    with pytest.raises(error, match=says):
        Work(**{"context": 64, "prompt_tokens": 8, **given})


def test_shapes_and_devices_of_two_kinds_are_refused() -> None:
    """Engines of GPUs hold other bytes."""
    with pytest.raises(ConfigError, match="the shape is of engines for CPUs, the device one of the GPUs"):
        forecast(ONE, L4, WORK)


def test_a_precision_that_was_not_measured_is_refused() -> None:
    """With those that were."""
    narrow = msgspec.structs.replace(ONE, precision="w4")
    with pytest.raises(ConfigError, match="by hand was measured for fp32, expected w4"):
        forecast(narrow, device(), WORK)


def test_rows_take_the_shape_of_each_devices_kind() -> None:
    """In the order of the devices, by their names."""
    shapes = [shape_of_hierarchy("1@1", Sizes(), "fp16", on_gpu) for on_gpu in (False, True)]
    rows = forecast_rows(shapes, {name: known_devices()[name] for name in ("apple-m4", "l4")}, WORK)
    assert [row.device for row in rows] == ["apple-m4", "l4"]
    assert rows[0] == forecast(shapes[0], known_devices()["apple-m4"], WORK, "apple-m4")
    assert rows[1] == forecast(shapes[1], L4, WORK, "l4")
