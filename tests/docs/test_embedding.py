"""The program of docs/embedding.md, run as it is written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from precisions import PrecisionZoo

import foveal

PAGE = Path(__file__).parent.parent.parent / "docs" / "embedding.md"


def test_the_program_runs(precise: PrecisionZoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All Python blocks of the page, one after the other, in one module; tasks write what threads write."""
    (tmp_path / "model.bundle").symlink_to(precise["nested"].full.path)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    names: dict[str, object] = {"__name__": "example"}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert all(len(answer) > 5 for answer in names["answers"])  # type: ignore[attr-defined]


def test_its_errors_are_there() -> None:
    """Every error that the page names can be caught by that name."""
    named = set(re.findall(r"`(\w+Error)`", PAGE.read_text(encoding="utf-8"))) - {"ValueError", "RuntimeError", "ImportError"}
    assert len(named) > 3
    assert named <= set(foveal.__all__)
