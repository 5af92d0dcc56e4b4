"""The examples of docs/your-own-model.md, run as they are written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent.parent / "docs" / "your-own-model.md"


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All Python blocks of the page, one after the other, in one module."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    names: dict[str, object] = {"__name__": "example"}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert isinstance(names["text"], str)
    assert names["bundle"].manifest.model.architecture == "gist"  # type: ignore[attr-defined]
    assert names["deciding"].manifest.model.architecture == "words"  # type: ignore[attr-defined]
    assert 0 < len(names["fired"]["first"]) < 16  # type: ignore[index]
