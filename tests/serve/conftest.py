"""A small model of bytes, served."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from serving import Site, opened_site
from specimens import Goldens

from foveal import load
from foveal.runtime.model import Model


@pytest.fixture(scope="session")
def model(goldens: Goldens) -> Model:
    """256 ids, read as bytes; 128 positions."""
    return load(goldens["s4_naive_attn"], threads=1)


@pytest.fixture(scope="module")
def site(model: Model) -> Iterator[Site]:
    """With a store, and nobody who has to bear a token."""
    with opened_site(model, store=True) as site:
        yield site
