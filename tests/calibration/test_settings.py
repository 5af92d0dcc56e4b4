"""Settings are checked when they are made."""

from __future__ import annotations

from typing import Any

import pytest

from foveal import ConfigError
from foveal.calibration import CalibrationSettings


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        ({"method": "guess"}, 'unknown method "guess"; expected one of minmax, percentile, entropy'),
        ({"percentile": 50}, "percentile is 50, expected more than 50 and at most 100"),
        ({"percentile": 100.1}, "percentile is 100.1, expected more than 50 and at most 100"),
        ({"percentile": float("nan")}, "percentile is nan, expected more than 50"),
        ({"method": "minmax", "percentile": 99}, 'percentile is 99, but the method is "minmax", which clips by no percentile'),
        ({"max_tokens": 0}, "max_tokens is 0, expected at least 1, or None for all"),
    ],
)
def test_settings_that_mean_nothing(choice: dict[str, Any], reason: str) -> None:
    """What was got and what is expected."""
    with pytest.raises(ConfigError, match=reason):
        CalibrationSettings(**choice)


def test_settings_at_their_ends() -> None:
    """Nothing clipped, and a single token."""
    assert CalibrationSettings(percentile=100, max_tokens=1).method == "percentile"
