"""Who imports whom, read from the sources: foveal's modules, and the tests and what they share."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PARTS = (
    "bench",
    "calibration",
    "cli",
    "contract",
    "distributed",
    "export",
    "forecast",
    "hub",
    "models",
    "offline",
    "report",
    "runtime",
    "serve",
)


def sources() -> Iterator[Path]:
    """Every source file inside the parts."""
    for part in PARTS:
        yield from (ROOT / part).rglob("*.py")


def module_of(file: Path) -> str:
    """`foveal.export.building` for export/building.py, `foveal.export` for export/__init__.py."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(("foveal", *(part for part in parts if part != "__init__")))


def import_graph() -> dict[str, set[str]]:
    """Which modules each module of foveal imports, wherever the import stands; packages' lazy faces are left out."""
    files = {module_of(file): file for file in (*sources(), *ROOT.glob("*.py")) if file.stem != "__init__"}
    return {module: set(relative_imports(module, file)) & set(files) for module, file in files.items()}


def relative_imports(module: str, file: Path) -> Iterator[str]:
    """The modules that a file may mean: where an import stands, and each name that it takes from there."""
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.ImportFrom) and node.level:
            place = [*module.split(".")[: -node.level], *filter(None, [node.module])]
            yield ".".join(place)
            yield from (".".join((*place, alias.name)) for alias in node.names)


@functools.cache
def parsed(file: Path) -> ast.Module:
    """A source file; read once."""
    return ast.parse(file.read_text(encoding="utf-8"))


class Users:
    """Which files use which: all of foveal's, all tests and what they share, by path.

    A name that is taken from a package's face, as in `from foveal import convert`, is looked up where the face has it from.
    """

    def __init__(self) -> None:
        tests = [path for path in (ROOT / "tests").rglob("*.py") if "golden_families" not in path.parts]
        foveal = [*sources(), *ROOT.glob("*.py")]
        self.files = [*foveal, *tests]
        self._modules = {module_of(file): file for file in foveal} | {file.stem: file for file in (ROOT / "tests").glob("*.py")}
        self._uses = {file: set(self._used_by(file)) - {file} for file in self.files}

    def distances(self, changed: set[Path]) -> dict[Path, int]:
        """How many imports away each file is from the nearest of those that changed; files that use none are left out."""
        found, here = dict.fromkeys(changed, 0), changed
        while here:
            here = {file for file, used in self._uses.items() if used & here and file not in found}
            found |= dict.fromkeys(here, max(found.values()) + 1)
        return found

    def _used_by(self, file: Path) -> Iterator[Path]:
        is_test = (ROOT / "tests") in file.parents
        if is_test:
            yield from (conftest for folder in file.parents if (conftest := folder / "conftest.py") in self.files)
        package = [] if is_test else module_of(file).split(".")
        if file.stem != "__init__":
            package = package[:-1]
        for node in self._nodes(file):
            if isinstance(node, ast.ImportFrom):
                above = package[: len(package) + 1 - node.level] if node.level else []
                place = ".".join(filter(None, (*above, node.module)))
                for alias in node.names:
                    yield from self._resolved(place, alias.name)
            elif isinstance(node, ast.Import):
                yield from (self._modules[alias.name] for alias in node.names if alias.name in self._modules)
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "foveal" and is_test:
                yield from self._resolved("foveal", node.attr)

    def _nodes(self, file: Path) -> Iterator[ast.AST]:
        """Of a package's face only what it imports at once: the rest is for those who ask for it."""
        tree = parsed(file)
        return ast.walk(tree) if file.stem != "__init__" else iter(tree.body)

    def _resolved(self, place: str, name: str) -> Iterator[Path]:
        """The files that `from place import name` needs."""
        if f"{place}.{name}" in self._modules:
            yield self._modules[f"{place}.{name}"]
        elif place in self._modules:
            yield self._modules[place]
            if self._modules[place].stem == "__init__":
                yield from self._behind_the_face(place, name)

    def _behind_the_face(self, package: str, name: str) -> Iterator[Path]:
        for node in ast.walk(parsed(self._modules[package])):
            if isinstance(node, ast.ImportFrom) and node.level == 1 and name in [alias.name for alias in node.names]:
                yield from self._resolved(".".join(filter(None, (package, node.module))), name)
