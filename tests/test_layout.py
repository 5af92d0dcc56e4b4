"""The layout's own promises."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from imports import PARTS, ROOT, import_graph, parsed, sources

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CORE = {
    "bundle",
    "contents",
    "contract",
    "errors",
    "files",
    "hierarchy",
    "json_files",
    "locks",
    "parallel",
    "places",
    "precision",
    "progress",
    "sidecar",
    "storage",
}
# Which parts of foveal each part may import (arrows point one way).
ALLOWED = {
    "contract": CORE,
    "hub": CORE,
    "runtime": CORE,
    "models": CORE | {"hub"},
    "calibration": CORE | {"models", "runtime"},
    "export": CORE | {"hub", "models", "runtime", "calibration"},
    "forecast": CORE | {"models", "runtime"},
    "bench": CORE | {"models", "runtime", "calibration", "export", "forecast"},
    "report": CORE | {"runtime", "calibration", "bench", "forecast"},
    "offline": CORE | {"runtime"},
    "serve": CORE | {"runtime"},
    "distributed": CORE | {"runtime", "offline", "serve"},
    "cli": CORE
    | {"hub", "models", "runtime", "calibration", "export", "forecast", "bench", "report", "offline", "serve", "distributed"},
}


def imported_parts(file: Path) -> Iterator[str]:
    """The top-level parts of foveal that a file imports, wherever the import stands."""
    depth = len(file.relative_to(ROOT).parts) - 1
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.ImportFrom) and node.level == depth + 1:
            yield from [node.module.split(".")[0]] if node.module else []


@pytest.mark.parametrize("part", PARTS)
def test_arrows_point_one_way(part: str) -> None:
    """The runtime knows no models, models no export, and so on up to the command line."""
    for file in (ROOT / part).rglob("*.py"):
        assert set(imported_parts(file)) <= ALLOWED[part] | {part}, file


ROOMS = {  # of export/; what starts from a bundle or a checkpoint stands in front of them
    "graphs": set(),
    "precision": {"graphs"},
    "cpu": {"graphs"},
    "tensorrt": {"graphs", "precision"},
    "triton": set(),
}


@pytest.mark.parametrize("room", ROOMS)
def test_arrows_between_the_rooms_of_export_point_one_way(room: str) -> None:
    """Graphs know no precisions, precisions no targets, and none of them what converts, builds or compares."""
    here = f"foveal.export.{room}."
    for module, targets in import_graph().items():
        if module.startswith(here):
            rooms = {target.split(".")[2] for target in targets if target.startswith("foveal.export.")}
            assert rooms <= ROOMS[room] | {room}, module


def test_no_module_imports_itself_in_a_circle() -> None:
    """Not through others either, and not for its types."""
    graph, done = import_graph(), set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path[path.index(module) :], module))
        if module not in done:
            for target in graph[module]:
                visit(target, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_parts_import_each_other_relatively() -> None:
    """Relative imports are read right by every tool, whatever the checkout is called."""
    for file in sources():
        for node in ast.walk(parsed(file)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            assert not any(name.split(".")[0] == "foveal" for name in names), file


def test_every_folder_is_packed() -> None:
    """The wheel's list of packages names every folder that holds code."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    folders = {file.parent.relative_to(ROOT) for file in sources()}
    assert set(listed) == {"foveal"} | {".".join(("foveal", *folder.parts)) for folder in folders}


def test_root_holds_no_stray_module() -> None:
    """Any other module in the root would be packed as part of foveal."""
    assert {file.stem for file in ROOT.glob("*.py")} == (CORE - {"contract"}) | {"__init__"}


HEAVY = {
    "fastapi",
    "huggingface_hub",
    "uvicorn",
    "prometheus_client",
    "torch",
    "onnx",
    "onnx_ir",
    "onnxscript",
    "onnxruntime",
    "tokenizers",
    "scipy",
    "matplotlib",
    "polygraphy",
}


@pytest.mark.parametrize(("module", "most"), [("foveal", 20), ("foveal.runtime", 360), ("foveal.cli", 500)])
def test_importing_is_light(module: str, most: int) -> None:
    """No library that takes long is loaded, and no more modules than take about a third of a second."""
    code = f"import sys; before = set(sys.modules); import {module}; print(*set(sys.modules) - before)"
    loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())
    assert not loaded & HEAVY
    assert len(loaded) <= most


WITHOUT_TORCH = (
    "building",
    "planning",
    "comparison.compare_stages",
    "comparison.compare_layers",
    "comparison.bisection",
    "compile",
    "precision.write_precision",
    "cpu.lower",
    "tensorrt.compile",
    "triton.repository",
    "graphs.change_dialect",
    "graphs.saving",
    "graphs.dialect",
    "graphs.functions",
)


def test_engines_are_built_without_torch() -> None:
    """From a bundle that was copied to a machine that has none, as a Jetson: all of these can be imported."""
    code = (
        "import sys; from importlib import import_module; sys.modules['torch'] = None\n"
        f"for name in {WITHOUT_TORCH}: import_module(f'foveal.export.{{name}}')"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")


def test_what_starts_from_a_model_says_that_it_needs_torch() -> None:
    """With the line that installs it; what does not, is there."""
    code = (
        "import sys; sys.modules['torch'] = None; import foveal; foveal.build, foveal.plan_precision\n"
        "try: foveal.convert\nexcept foveal.BackendUnavailable as error: print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == (
        "torch can't be imported; exporting needs it: pip install '.[export]' in foveal's folder, "
        "or with its wheel in the place of the dot\n"
    )


def test_the_public_names_are_there() -> None:
    """Every name of `__all__` can be had."""
    import foveal

    assert all(getattr(foveal, name) is not None for name in foveal.__all__)
    with pytest.raises(AttributeError, match="no attribute 'transmogrify'"):
        _ = foveal.transmogrify


@pytest.mark.parametrize("package", ["foveal", "foveal.export", "foveal.models"])
def test_packages_that_import_late_show_what_they_have(package: str) -> None:
    """In `dir`, and so where an editor or a prompt completes names, before anything of it was imported."""
    code = f"import {package} as package; print(sorted({{*package.__all__, '__file__'}} - set(dir(package))))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_which_packages_import_late() -> None:
    """Those, and no others."""
    late = (path for path in sources() if path.name == "__init__.py" and "def __getattr__(" in path.read_text(encoding="utf-8"))
    files = {path.parent.relative_to(ROOT).as_posix() for path in late}
    assert files == {"export", "models", "runtime", "runtime/preflight"}
