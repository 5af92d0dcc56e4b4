"""Settings and fixtures of all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from precisions import PrecisionZoo
from run_records import RunRecords
from specimens import Goldens, Zoo
from store import Store

# Timings on a shared machine say nothing about correctness. Examples are new ones in every run; one that fails is printed with
# the line that repeats it.
settings.register_profile(
    "foveal", deadline=None, derandomize=False, print_blob=True, max_examples=int(os.environ.get("FOVEAL_EXAMPLES", "25"))
)
settings.load_profile("foveal")
torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The project's own."""
    parser.addoption("--record", type=Path, help="write how the run ended, and on what, into this page")


def pytest_configure(config: pytest.Config) -> None:
    """The process that reports keeps records."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(RunRecords(config.getoption("--record")))


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """What the processes of this run share; a run that a test starts shares it too, if it is told where it is."""
    shared = os.environ.get("FOVEAL_TESTS_STORE")
    base = tmp_path_factory.getbasetemp()
    own = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # workers have a folder each in the run's
    store = Store(Path(shared) if shared else own / "store")
    yield store
    assert store.changed() == [], "a test changed what all tests share; let it work on a copy"


@pytest.fixture(scope="session", autouse=True)
def _own_cache(store: Store) -> Iterator[None]:
    """What is kept for the next process, TensorRT's engines above all, is kept for this run alone, and away from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOVEAL_CACHE", str(store.directory / "cache"))
        yield


@pytest.fixture(scope="session")
def zoo(store: Store) -> Zoo:
    """Converted specimens by name; tests must not change them."""
    return Zoo(store)


@pytest.fixture(scope="session")
def goldens(store: Store) -> Goldens:
    """Converted golden checkpoints by name; tests must not change them."""
    return Goldens(store)


@pytest.fixture(scope="session")
def precise(store: Store) -> PrecisionZoo:
    """Specimens that every precision can be built of, by name; tests must not change them."""
    return PrecisionZoo(store)
