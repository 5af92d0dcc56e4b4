"""examples/01_minimal.py, as a user runs it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import foveal

SCRIPT = Path(__file__).parent.parent.parent / "examples" / "01_minimal.py"


def ran(*arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """The script's process, in a folder."""
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)


def test_it_prints_the_prompt_and_what_the_model_goes_on_with(bundle: Path, model: foveal.Model, tmp_path: Path) -> None:
    """With the bundle that is there: nothing is converted."""
    done = ran(bundle, "The sea", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "The sea" + "".join(model.generate("The sea", max_new_tokens=64, temperature=0.6, seed=1)) + "\n"
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_that_is_not_there_is_said_in_a_line(tmp_path: Path) -> None:
    """And not made: the user named another than the default."""
    done = ran("mine.bundle", folder=tmp_path)
    assert (done.returncode, done.stdout.count("\n")) == (1, 0)
    assert done.stderr.startswith("01_minimal.py: ")
    assert done.stderr.count("\n") == 1


def test_it_is_short() -> None:
    """From the first import to the last line, without blank lines and docstrings."""
    tree = ast.parse(SCRIPT.read_text(encoding="utf-8"))
    code = [line for node in tree.body[1:] for line in ast.unparse(node).splitlines() if line.strip()]
    assert len(code) <= 20
