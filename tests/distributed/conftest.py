"""Turns of Ray's clusters, and a model for them."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from jobs import bytes_bundle
from ray_commands import ray_turn
from store import Store

from foveal.bundle import Bundle


@pytest.fixture(scope="session")
def bundle(store: Store) -> Bundle:
    """A small one of bytes; tests must not change it."""
    return bytes_bundle(store)


@pytest.fixture(scope="module")
def turn(store: Store) -> Iterator[Path]:
    """The only cluster on this machine, and its folder."""
    if find_spec("ray") is None:
        pytest.skip("ray is not installed")
    with ray_turn(store.directory) as folder:
        yield folder
