"""The reference of the Python API: everything that `import foveal` gives, from its docstrings (mkdocstrings)."""

from __future__ import annotations

import inspect
import shutil
from pathlib import Path

import foveal

INTRODUCTION = """# Python API

Everything that `import foveal` gives. Importing it loads nothing heavy: `convert` needs the extra `export` (PyTorch and ONNX),
`load` one engine library. [Embedding foveal in an app](../embedding.md) shows how the parts work together.
"""
GROUPS = ("Functions", "Classes", "Errors and warnings")


def page() -> str:
    """The whole page."""
    groups: dict[str, list[str]] = {group: [] for group in GROUPS}
    for name in sorted(name for name in foveal.__all__ if not name.startswith("_")):
        thing = getattr(foveal, name)  # its own module's name leads to it: foveal.export.calibrate is a module too
        groups[_group(thing)].append(f"{thing.__module__}.{name}")
    parts = [INTRODUCTION]
    for group, paths in groups.items():
        parts += [f"## {group}\n", *(f"::: {path}\n" for path in paths)]
    return "\n".join(parts)


def lay_out(root: Path, directory: Path) -> None:
    """Links to the package's folders and files in `directory/foveal`, and to nothing else of the checkout."""
    shutil.rmtree(directory, ignore_errors=True)
    (directory / "foveal").mkdir(parents=True)
    for path in root.iterdir():
        if path.suffix == ".py" or (path / "__init__.py").exists():
            (directory / "foveal" / path.name).symlink_to(path)


def _group(thing: object) -> str:
    if not inspect.isclass(thing):
        return "Functions"
    return "Errors and warnings" if issubclass(thing, Exception) else "Classes"
