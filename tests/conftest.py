"""Settings and fixtures of all tests."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import settings
from precisions import PrecisionZoo
from specimens import Zoo

# Timings on a shared machine say nothing about correctness.
settings.register_profile("foveal", deadline=None, max_examples=int(os.environ.get("FOVEAL_EXAMPLES", "25")))
settings.load_profile("foveal")
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    """Converted specimens by name; tests must not change them."""
    return Zoo(tmp_path_factory.mktemp("zoo"))


@pytest.fixture(scope="session")
def precise(tmp_path_factory: pytest.TempPathFactory) -> PrecisionZoo:
    """Specimens that every precision can be built of, by name; tests must not change them."""
    return PrecisionZoo(tmp_path_factory.mktemp("precise"))
