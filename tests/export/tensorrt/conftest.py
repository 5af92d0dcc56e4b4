"""Fixtures of the tests of TensorRT's build path."""

from __future__ import annotations

from pathlib import Path

import pytest
from precisions import PrecisionZoo
from store import Store
from tensorrt_builds import PreciseModels

pytest.importorskip("tensorrt_rtx")


@pytest.fixture(scope="session")
def models(precise: PrecisionZoo, store: Store) -> PreciseModels:
    """Models to build in every precision, by name."""
    return PreciseModels(precise, store)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An engine cache of each test's own, empty."""
    directory = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("FOVEAL_CACHE", str(directory))
    return directory
