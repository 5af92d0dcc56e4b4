"""The native library, for each instruction set that this machine has."""

from __future__ import annotations

from pathlib import Path

import pytest
from native_library import ISAS, library_for

from foveal.runtime.engines.native_library import NativeLibrary


@pytest.fixture(scope="session", params=ISAS)
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> NativeLibrary:
    return library_for(request.param, _directory(tmp_path_factory))


@pytest.fixture(scope="session")
def best(tmp_path_factory: pytest.TempPathFactory) -> NativeLibrary:
    """With the best instructions that there are."""
    return library_for("", _directory(tmp_path_factory))


def _directory(factory: pytest.TempPathFactory) -> Path:
    return factory.mktemp("native")
