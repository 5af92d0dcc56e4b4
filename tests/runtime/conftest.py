"""Settings of the runtime's tests."""

from __future__ import annotations

import pytest
from fake_cuda import FakeGpu


@pytest.fixture
def gpu() -> FakeGpu:
    """A fresh one."""
    return FakeGpu()
