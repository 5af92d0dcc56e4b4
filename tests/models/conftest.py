"""What the tests of families share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from family_engines import FamilyEngines
from store import Store

from foveal.models import Architecture


@pytest.fixture
def family(store: Store, tmp_path: Path) -> Callable[[str, Callable[[], Architecture]], FamilyEngines]:
    """Engines of a small model, by a name that no other has."""
    return partial(FamilyEngines, store=store, directory=tmp_path)
