"""The examples as modules, and the bundle that they run on."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from store import Store

import foveal

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "examples"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """An example by its file's name, without `.py`; what it imports from beside it is found, as where it is run."""
    monkeypatch.syspath_prepend(EXAMPLES)

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)  # where dataclasses look for it
        spec.loader.exec_module(module)
        return module

    yield load
    sys.modules.pop("common", None)


@pytest.fixture(scope="session")
def bundle(store: Store) -> Path:
    """Of the smallest checkpoint of text that comes with foveal; tests must not change it."""
    made = store.once("examples", lambda directory: foveal.convert(ROOT / "models/checkpoints/vanilla", directory / "text"))
    return made / "text"


@pytest.fixture(scope="session")
def model(bundle: Path) -> foveal.Model:
    """Of that bundle."""
    return foveal.load(bundle, threads=1)
