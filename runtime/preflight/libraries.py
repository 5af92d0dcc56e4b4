"""The engine libraries that are installed, and their versions, mostly without importing them."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import msgspec

# Where a module may come from. Those named after a CUDA version hold its code; the plain one may only ask for them.
_DISTRIBUTIONS = {
    "tensorrt": ("tensorrt-cu13", "tensorrt-cu12", "tensorrt"),
    "tensorrt_lean": ("tensorrt-lean-cu13", "tensorrt-lean-cu12", "tensorrt-lean"),
    "tensorrt_rtx": ("tensorrt-rtx-cu13", "tensorrt-rtx-cu12", "tensorrt-rtx"),
    "onnxruntime": ("onnxruntime-gpu", "onnxruntime"),
}


class Installed(msgspec.Struct, frozen=True, kw_only=True):
    """An engine library.

    Attributes:
        package: that it came with; None: not from pip.
        version: None: it is there and can't be imported.
        cuda: major version of the CUDA that it was built for, if its package says so.
        trouble: why it can't be imported.
    """

    package: str | None = None
    version: str | None = None
    cuda: int | None = None
    trouble: str | None = None


def find_libraries() -> dict[str, Installed]:
    """By the name of their modules."""
    return {module: _describe(module) for module in _DISTRIBUTIONS if find_spec(module) is not None}


def _describe(module: str) -> Installed:
    for package in _DISTRIBUTIONS[module]:
        try:
            found = version(package)
        except PackageNotFoundError:
            continue
        _, _, cuda = package.partition("-cu")
        return Installed(package=package, version=found, cuda=int(cuda) if cuda else None)
    return _import(module)


def _import(module: str) -> Installed:
    """JetPack installs TensorRT with apt: only the module knows its version."""
    try:
        return Installed(version=str(import_module(module).__version__))
    except (ImportError, OSError, AttributeError) as error:  # OSError: a shared library that it loads itself
        return Installed(trouble=str(error))
