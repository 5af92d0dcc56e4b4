"""docs/devices.md forecasts by its own arithmetic: bandwidth over bytes per token; and claims nothing that was not run."""

from __future__ import annotations

from pathlib import Path

import pytest

PAGE = (Path(__file__).parent.parent.parent / "docs" / "devices.md").read_text(encoding="utf-8")


def rows_below(heading: str) -> list[list[str]]:
    """Cells of the table with this header row."""
    lines = iter(PAGE[PAGE.index(heading) :].splitlines()[2:])
    found = []
    for line in lines:
        if not line.startswith("|"):
            break
        found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


MEGABYTES = {name: float(value) for name, value in rows_below("| | MB per token |")}
DEVICES = rows_below("| device | engines on | makers' GB/s |")


@pytest.mark.parametrize("row", DEVICES, ids=lambda row: row[0])
def test_a_forecast_is_bandwidth_over_bytes(row: list[str]) -> None:
    """To three digits; CPU engines keep int8 caches, others do not."""
    _, place, bandwidth, *limits, measured = row
    assert measured == "not run"
    for precision, limit in zip(("fp32", "fp16", "int8", "w4"), limits, strict=True):
        size = MEGABYTES.get(precision) or MEGABYTES.get(f"{precision}, {place}")
        assert (limit == "-") == (size is None)
        if size is not None:
            expected = float(bandwidth.replace(",", "")) * 1e3 / size
            assert float(limit.replace(",", "")) == pytest.approx(expected, rel=5e-3)


def test_the_devices_people_ask_about_are_there() -> None:
    """Boards, desktops, datacenter and laptops."""
    named = " ".join(row[0] for row in DEVICES)
    for device in ("Orin Nano Super", "Orin NX", "AGX Orin", "Thor", "Raspberry Pi 5", "RTX 4090", "H100", "Apple M"):
        assert device in named
