"""Settings of the runtime's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fake_cuda import FakeGpu


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What engines keep for the next process is kept away from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOVEAL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def gpu() -> FakeGpu:
    """A fresh one."""
    return FakeGpu()
