"""The notebooks run from their first cell to their last, on a small model; they are kept without outputs."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from specimens import random_model

from foveal.models.checkpoint import save_checkpoint
from foveal.models.text import byte_tokenizer

ROOT = Path(__file__).parent.parent.parent
NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))
SMALL = """
from pathlib import Path
CHECKPOINT, CALIBRATION, EVALUATION = (Path({folder!r}) / name for name in ("small", "a.txt", "b.txt"))
WORK = Path({work!r})
TOKENS, ROUNDS = 48, 2
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of bytes, and two texts."""
    made = tmp_path_factory.mktemp("notebooks")
    save_checkpoint(random_model("1@1 2@4 1@1", vocab_size=256), made / "small")
    byte_tokenizer().save(str(made / "small" / "tokenizer.json"))
    for index, name in enumerate(("a.txt", "b.txt")):
        (made / name).write_text(" ".join(f"the {word + index} sea" for word in range(300)))
    return made


def outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """All, in order."""
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


@pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client.*", "ignore::DeprecationWarning:zmq.*")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_runs(path: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With pictures, and without a warning."""
    monkeypatch.setenv("IPYTHONDIR", str(folder / "ipython"))
    notebook = nbformat.read(path, as_version=4)
    parameters = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    parameters.source += SMALL.format(folder=str(folder), work=str(tmp_path))
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(path.parent)}}).execute()
    given = outputs(notebook)
    assert sum("image/png" in output.get("data", {}) for output in given) == path.read_text().count("plt.show()")
    assert [output.text for output in given if output.get("name") == "stderr"] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_kept_without_outputs(path: Path) -> None:
    """Figures of somebody's machine would age there; `jupyter nbconvert --clear-output --inplace` takes them off."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert outputs(notebook) == []
    assert {cell.execution_count for cell in notebook.cells if cell.cell_type == "code"} == {None}


def test_both_are_listed() -> None:
    """In the index of the examples."""
    index = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in NOTEBOOKS if f"(notebooks/{path.name})" not in index] == []
    assert len(NOTEBOOKS) == 2
