"""The reference of the Python API: everything that `import foveal` gives, from its docstrings (mkdocstrings).

Nothing but foveal's root is imported, so that the site is built without PyTorch and ONNX: import statements say where a name is
defined.
"""

from __future__ import annotations

import ast
import shutil
from pathlib import Path
from typing import NamedTuple

import foveal

INTRODUCTION = """# Python API

Everything that `import foveal` gives. Importing it loads nothing heavy: `convert` needs the extra `export` (PyTorch and ONNX),
`load` one engine library. [Embedding foveal in an app](../embedding.md) shows how the parts work together.
"""
GROUPS = ("Functions", "Classes", "Errors and warnings")


class Definition(NamedTuple):
    """Of a class or function: its module, and its statement."""

    module: str
    statement: ast.stmt


def page(root: Path) -> str:
    """The whole page, of the package at that folder."""
    groups: dict[str, list[str]] = {group: [] for group in GROUPS}
    for name in sorted(name for name in foveal.__all__ if not name.startswith("_")):
        found = definition(root, "foveal", name)
        groups[_group(found)].append(f"{found.module}.{name}")
    parts = [INTRODUCTION]
    for group, paths in groups.items():
        parts += [f"## {group}\n", *(f"::: {path}\n" for path in paths)]
    return "\n".join(parts)


def definition(root: Path, module: str, name: str) -> Definition:
    """Where a name of a module is defined, through all modules that import it from another.

    Raises:
        LookupError: the module neither defines nor imports it.
    """
    place = root.joinpath(*module.split(".")[1:])
    package = place.is_dir()
    file = place / "__init__.py" if package else place.with_suffix(".py")
    for statement in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(statement, ast.ClassDef | ast.FunctionDef) and statement.name == name:
            return Definition(module, statement)
        if isinstance(statement, ast.ImportFrom) and any(alias.name == name for alias in statement.names):
            above = module.split(".")[: len(module.split(".")) - statement.level + package]
            return definition(root, ".".join([*above, *(statement.module or "").split(".")]), name)
    raise LookupError(f"{module} neither defines nor imports {name}")


def lay_out(root: Path, directory: Path) -> None:
    """Links to the package's folders and files in `directory/foveal`, and to nothing else of the checkout."""
    shutil.rmtree(directory, ignore_errors=True)
    (directory / "foveal").mkdir(parents=True)
    for path in root.iterdir():
        if path.suffix == ".py" or (path / "__init__.py").exists():
            (directory / "foveal" / path.name).symlink_to(path)


def _group(found: Definition) -> str:
    if isinstance(found.statement, ast.FunctionDef):
        return "Functions"
    return "Errors and warnings" if found.module == "foveal.errors" else "Classes"
