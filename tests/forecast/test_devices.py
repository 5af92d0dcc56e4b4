"""Devices: every figure has a source, every name can be asked for, and files of one's own are read."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from forecasting import device

from foveal.errors import ConfigError
from foveal.forecast.devices import Device, Figure, MeasuredDevice, device_named, known_devices
from foveal.precision import PRECISIONS

FIGURES = "memory_gb", "bandwidth_gb_s", "fp32_tflops", "fp16_tflops", "int8_tops", "watts"
ASKED_FOR = (
    "orin-nano-4gb orin-nano-8gb orin-nano-4gb-super orin-nano-8gb-super orin-nx-16gb agx-orin-64gb agx-thor rtx-4090 "
    "rtx-5090 l4 a100-40gb a100-80gb h100 h200 raspberry-pi-5 apple-m4"
)


@pytest.mark.parametrize("name", known_devices())
def test_every_device_is_complete(name: str) -> None:
    """A figure above 0 with its source, or null with the reason; what is assumed lies between nothing and all."""
    found = known_devices()[name]
    for field in FIGURES:
        figure: Figure = getattr(found, field)
        assert figure.source, (name, field)
        assert figure.value is None or figure.value > 0, (name, field)
    assert found.memory_gb.value
    assert found.bandwidth_gb_s.value
    assumed = found.assumed
    assert assumed.why
    for low, high in (assumed.bandwidth_share, assumed.arithmetic_share):
        assert 0 < low < high < 1
    assert 0 < assumed.memory_share < 1


@pytest.mark.parametrize("name", known_devices())
def test_every_device_has_rates_of_every_precision(name: str) -> None:
    """By each kind of engines; at worst less than at best."""
    found = known_devices()[name]
    for native in (True, False):
        low, middle, high = (found.rates(reach, native) for reach in ("low", "middle", "high"))
        assert set(middle.engines) == set(PRECISIONS)
        speeds = [rates.engines["fp32"].weights.memory for rates in (low, middle, high)]
        assert speeds == sorted(set(speeds))
        assert speeds[-1] < (found.bandwidth_gb_s.value or 0) * 1e9


def test_all_that_are_promised_are_known() -> None:
    """And an unknown one is told from what there is."""
    assert set(ASKED_FOR.split()) <= set(known_devices())


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("rtx-4080", 'unknown device "rtx-4080"; did you mean "rtx-4090"'),
        ("Raspberry Pi 5", 'did you mean "raspberry-pi-5"'),
        ("abacus!", r'unknown device "abacus!".*Known are: orin-nano-4gb, .*apple-m4; this, the machine'),
        ("nowhere.json", "nowhere.json can't be read"),
    ],
)
def test_unknown_devices_are_refused(name: str, says: str) -> None:
    """With the nearest name, and all that there are."""
    with pytest.raises(ConfigError, match=says):
        device_named(name)


def test_a_device_of_ones_own(tmp_path: Path) -> None:
    """With assumptions by name, or its own; what is no device is refused."""
    file = tmp_path / "board.json"
    given = json.loads(msgspec.json.encode(known_devices()["l4"]))
    file.write_text(json.dumps({**given, "title": "mine", "watts": {"value": None, "source": "not measured"}}))
    found = device_named(str(file))
    assert isinstance(found, Device)
    assert (found.title, found.power, found.rates()) == ("mine", None, known_devices()["l4"].rates())
    own = json.loads(msgspec.json.encode(known_devices()["l4"].assumed))
    file.write_text(json.dumps({**given, "assumptions": {**own, "bandwidth_share": [0.9, 0.9]}}))
    assert device_named(str(file)).rates("low").engines["w4"].caches.memory == pytest.approx(270e9)
    file.write_text(json.dumps({**given, "assumptions": "guess"}))
    with pytest.raises(ConfigError, match='takes assumptions "guess", expected one of board, jetson'):
        device_named(str(file))
    file.write_text(json.dumps({**given, "watt": 3}))
    with pytest.raises(ConfigError, match="is no device .*watt"):
        device_named(str(file))


def test_a_measured_machine_is_read_back(tmp_path: Path) -> None:
    """As `--save` writes it; engines that were not measured are refused."""
    file = tmp_path / "machine.json"
    file.write_bytes(msgspec.json.encode(device()))
    assert device_named(str(file)) == device()
    native = msgspec.structs.replace(device(), by_engines={"native": device().by_engines["native"]})
    assert isinstance(native, MeasuredDevice)
    with pytest.raises(ConfigError, match="by hand was measured with engines: native; expected graph"):
        native.rates(native=False)


def test_a_device_whose_bandwidth_nobody_knows() -> None:
    """There is nothing to forecast from."""
    unknown = msgspec.structs.replace(known_devices()["l4"], bandwidth_gb_s=Figure(None, "it is a secret"))
    with pytest.raises(ConfigError, match=r"the memory bandwidth of L4 is not known \(it is a secret\)"):
        unknown.rates()


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.parametrize("value", [0, -1])
def test_figures_are_above_nothing(figure: str, value: float, tmp_path: Path) -> None:
    """Nobody can read at no speed, or have less than no memory: the file is refused, and the figure named."""
    given = json.loads(msgspec.json.encode(known_devices()["l4"]))
    file = tmp_path / "board.json"
    file.write_text(json.dumps({**given, figure: {"value": value, "source": "a slip of the pen"}}))
    with pytest.raises(ConfigError, match=rf"is no device \(Expected .* > 0.*{figure}"):
        device_named(str(file))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"bandwidth_share": [0.9, 0.5]}, "bandwidth_share is 0.9 at worst and 0.5 at best, expected no less at best"),
        ({"arithmetic_share": [0.0, 0.5]}, "Expected `float` > 0.*arithmetic_share"),
        ({"bandwidth_share": [0.5, 1.5]}, "Expected `float` <= 1.*bandwidth_share"),
        ({"memory_share": -1}, "Expected `float` > 0.*memory_share"),
        ({"program_mb": -1}, "Expected `float` >= 0.*program_mb"),
        ({"logit_ns": -1}, "Expected `float` >= 0.*logit_ns"),
    ],
)
def test_assumptions_are_possible(change: dict[str, object], says: str, tmp_path: Path) -> None:
    """Shares of a maker's figure lie between nothing and all, overheads are not negative."""
    given = json.loads(msgspec.json.encode(known_devices()["l4"]))
    own = json.loads(msgspec.json.encode(known_devices()["l4"].assumed))
    file = tmp_path / "board.json"
    file.write_text(json.dumps({**given, "assumptions": {**own, **change}}))
    with pytest.raises(ConfigError, match=f"is no device .*{says}"):
        device_named(str(file))


@pytest.mark.parametrize(("processor", "known", "expected"), [("cpu", "l4", "native"), ("gpu", "apple-m4", "recorded")])
def test_assumptions_of_the_other_kind_of_processor(processor: str, known: str, expected: str) -> None:
    """They say nothing of engines that run there: what is there and what is missing is told."""
    other = msgspec.structs.replace(known_devices()[known], processor=processor)
    with pytest.raises(ConfigError, match=f"a {processor.upper()}, have overheads of engines: .*; expected {expected}; add"):
        other.rates()
