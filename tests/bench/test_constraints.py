"""What constraints cost."""

from __future__ import annotations

import sys

import pytest
from guided import SHIPPED

from foveal.bench.constraints import main


def test_masks_and_waits_are_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """For bytes, a tokenizer and a larger vocabulary."""
    sizes = ["--large", "5000", "--tokens", "20", "--waits", "20", "--step-ms", "0.1"]
    monkeypatch.setattr(sys, "argv", ["constraints", "--tokenizer", str(SHIPPED), *sizes])
    main()
    printed = capsys.readouterr().out
    assert "a mask, us" in printed
    for name in ("bytes, 256", "hourglass, 4,096", "made up, 5,000"):
        assert printed.count(name) >= 6
