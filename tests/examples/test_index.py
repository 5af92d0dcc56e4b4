"""examples/README.md lists every example, and every example says how to run it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
INDEX = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
SCRIPTS = sorted((ROOT / "examples").glob("[0-9]*.py"))


def test_all_are_numbered_and_listed_in_order() -> None:
    """Each with a command."""
    listed = re.findall(r"^\| \[(\w+\.py)\].*\| `python examples/(\w+\.py)[^`]*` \|$", INDEX, flags=re.MULTILINE)
    assert [name for name, _ in listed] == [command for _, command in listed] == [path.name for path in SCRIPTS]
    assert [int(path.name[:2]) for path in SCRIPTS] == list(range(1, len(SCRIPTS) + 1))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_each_says_how_to_run_it_and_has_a_test(script: Path) -> None:
    """In its docstring, and beside this file."""
    said = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or ""
    assert f"python examples/{script.name}" in said
    assert (Path(__file__).parent / f"test_{script.name}").exists()
