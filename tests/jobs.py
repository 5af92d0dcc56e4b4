"""What the tests of jobs over files share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from specimens import random_model
from store import Store

from foveal.bundle import Bundle, open_bundle
from foveal.export import convert_model


def bytes_bundle(store: Store) -> Bundle:
    """A small model of two scales that reads bytes."""
    made = store.once(
        "jobs/bytes",
        lambda directory: convert_model(random_model("1@1 1@4 1@1", vocab_size=256), directory / "bytes", tokenizer="bytes"),
    )
    return open_bundle(made / "bytes")


def prompts(path: Path, count: int) -> Path:
    """A file of different prompts, a prompt a line."""
    path.write_text("".join(f"{path.stem} {number}\n" for number in range(1, count + 1)), encoding="utf-8")
    return path


def records(path: Path) -> list[dict[str, Any]]:
    """What was written, line by line; each is whole."""
    data = path.read_bytes()
    assert data.endswith(b"\n") or not data
    return [json.loads(line) for line in data.splitlines()]
