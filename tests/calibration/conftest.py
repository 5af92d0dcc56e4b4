"""What the tests of calibration share: one converted model, and text."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from precisions import write_text
from specimens import Specimen, random_model
from store import Store

from foveal.bundle import Bundle, open_bundle
from foveal.export import convert_model


@pytest.fixture(scope="session")
def nested(store: Store) -> Specimen:
    """Three scales, products in every kind of place, rotated keys, a context of 96 bytes; tests must not change it.

    Some stacks are empty: an export takes seconds for each that is not.
    """
    choices = {"shortening": "linear", "upsampling": "linear", "positions": "rotary", "head_bias": True}
    model = random_model("1@1 0@2 1@4 0@2 0@1", vocab_size=300, **choices)
    made = store.once("calibration", lambda directory: convert_model(model, directory / "b", tokenizer="bytes"))
    return Specimen(model, open_bundle(made / "b"))


def copied(bundle: Bundle, path: Path) -> Bundle:
    """The bundle elsewhere, without what was found out about it."""
    ignored = shutil.ignore_patterns("reports")
    return Bundle(Path(shutil.copytree(bundle.path, path, ignore=ignored)), bundle.manifest)


@pytest.fixture
def bundle(nested: Specimen, tmp_path: Path) -> Bundle:
    """The same bundle to write into."""
    return copied(nested.bundle, tmp_path / "b")


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some 4,500 bytes of ASCII."""
    return write_text(tmp_path_factory.mktemp("text") / "text.txt")


@pytest.fixture
def with_weight(nested: Specimen, tmp_path: Path) -> Callable[[str, str, np.ndarray], Bundle]:
    """Makes the bundle that differs in one weight, in place of a conversion of seconds; its hashes are not true."""

    def change(stage: str, weight: str, value: np.ndarray) -> Bundle:
        changed = copied(nested.bundle, tmp_path / "changed")
        path = changed.file(changed.manifest.engines["cpu"][stage])
        graph = ir.load(path)
        graph.graph.initializers[f"module.{weight}"].const_value = ir.tensor(value.astype(np.float32))
        ir.save(graph, path, external_data=f"{path.name}.new")
        return changed

    return change
