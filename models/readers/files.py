"""The files of a checkpoint: its weights, and what its `config.json` says its package was called with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ...errors import CheckpointError

USUAL = "model.safetensors"
PACKAGE_WEIGHTS = (USUAL, "model.pt", "model.pth", "model.bin", "pytorch_model.bin")
"""What a `state_dict` of a package that has no layout of its own may be called."""
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


def weight_files(path: Path) -> list[Path]:
    """Files that may hold a checkpoint's weights: the path itself, its `model.safetensors`, or all called like weights."""
    if path.is_file():
        return [path]
    if (path / USUAL).is_file():
        return [path / USUAL]
    return sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and file.is_file()) if path.is_dir() else []


def weight_file(path: Path) -> Path:
    """The one file of weights; raises CheckpointError if there are none or several."""
    files = weight_files(path)
    if len(files) != 1:
        found = ", ".join(file.name for file in files) or "none"
        raise CheckpointError(
            f"{path} has {len(files)} files of weights ({found}), expected one; give the path of the file itself"
        )
    return files[0]


def package_weights(directory: Path) -> Path:
    """The first of `PACKAGE_WEIGHTS` that is there; raises CheckpointError if none is."""
    path = next((directory / name for name in PACKAGE_WEIGHTS if (directory / name).is_file()), None)
    if path is None:
        raise CheckpointError(f"no weights in {directory}; expected one of {', '.join(PACKAGE_WEIGHTS)}")
    return path


def package_kwargs(directory: Path, config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The arguments of a package's class, as `config.json` has them under `kwargs`; raises CheckpointError if it has none."""
    kwargs = config.get("kwargs")
    if not isinstance(kwargs, Mapping):
        raise CheckpointError(f"{directory / 'config.json'} has no kwargs, expected the arguments of {name}")
    return kwargs


def names_in(path: Path) -> set[str]:
    """Names of a file's tensors, which are not read; those under `model`, if it holds more than weights.

    Nothing if the file can't be looked into: reading it in earnest says why.
    """
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt") as file:
                return set(file.keys())
        except SafetensorError:
            return set()
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # whatever a file of another kind provokes
        return set()
    inside = loaded.get("model", loaded) if isinstance(loaded, dict) else {}
    return {str(name) for name in inside} if isinstance(inside, dict) else set()
