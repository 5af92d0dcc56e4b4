"""A hub on this machine, and huggingface_hub that knows no other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub.file_download
import huggingface_hub.utils._http
import pytest
from hub_server import Hub, serving
from huggingface_hub import constants
from specimens import random_model

from foveal.models.checkpoint import save_checkpoint


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Empty, with an empty cache; nobody waits between two tries."""
    with serving() as hub:
        for name, value in {
            "ENDPOINT": hub.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_TOKEN_PATH": str(tmp_path / "token"),
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
        }.items():
            monkeypatch.setattr(constants, name, value)
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        no_sleep = SimpleNamespace(**{**vars(time), "sleep": lambda _: None})
        monkeypatch.setattr(huggingface_hub.utils._http, "time", no_sleep)
        monkeypatch.setattr(huggingface_hub.file_download, "time", no_sleep)
        yield hub


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a small checkpoint of foveal's own layout, with a card."""
    folder = tmp_path_factory.mktemp("checkpoint")
    save_checkpoint(random_model("1@1 1@2 1@1"), folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    return {**files, "README.md": b"---\nlicense: apache-2.0\nbase_model: someone/base\n---\n# A model\n"}
