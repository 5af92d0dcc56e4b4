"""A hub on this machine, and a small checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import Hub, at_hand
from specimens import random_model

from foveal.models.checkpoint import save_checkpoint


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Empty, with an empty cache, and no token."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with at_hand(tmp_path, monkeypatch) as hub:
        yield hub


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a small checkpoint of foveal's own layout, with a card."""
    folder = tmp_path_factory.mktemp("checkpoint")
    save_checkpoint(random_model("1@1 1@2 1@1"), folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    return {**files, "README.md": b"---\nlicense: apache-2.0\nbase_model: someone/base\n---\n# A model\n"}
