"""A model of bytes for jobs."""

from __future__ import annotations

import pytest
from jobs import bytes_bundle
from store import Store

from foveal import Model, load
from foveal.bundle import Bundle


@pytest.fixture(scope="session")
def bundle(store: Store) -> Bundle:
    """A small one; tests must not change it."""
    return bytes_bundle(store)


@pytest.fixture(scope="session")
def model(bundle: Bundle) -> Model:
    """Loaded, with one thread."""
    return load(bundle, threads=1)
