"""Any checkpoint directory foveal knows, recognised by its `config.json`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ..errors import CheckpointError
from .checkpoint import load_foveal
from .hourglass import Hourglass
from .lucidrains import CLASS, is_lucidrains, load_lucidrains


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A model in eval mode, fp32; the tokenizer that lay beside it; and whose layout it was."""

    model: Hourglass
    tokenizer_path: Path | None
    source_format: str


def load_model(checkpoint: str | Path) -> LoadedCheckpoint:
    """Load foveal's or lucidrains' checkpoint directory.

    Raises:
        CheckpointError: no such directory, or a layout that is neither; the message says what was found.
        ConfigError: a configuration that can't be decoded incrementally.
    """
    directory = Path(checkpoint)
    config = _read_config(directory)
    tokenizer = directory / "tokenizer.json"
    tokenizer_path = tokenizer if tokenizer.is_file() else None
    if is_lucidrains(config):
        return LoadedCheckpoint(load_lucidrains(directory, config), tokenizer_path, "lucidrains")
    if "hierarchy" in config:
        return LoadedCheckpoint(load_foveal(directory), tokenizer_path, "foveal")
    raise CheckpointError(
        f"{directory / 'config.json'} is of no layout foveal knows: got the keys {sorted(config)}"
        + (f' and class "{config["class"]}"' if "class" in config else "")
        + f', expected a "hierarchy" (foveal) or class "{CLASS}" (lucidrains)'
    )


def _read_config(directory: Path) -> dict[str, object]:
    path = directory / "config.json"
    if not directory.is_dir():
        raise CheckpointError(f"no checkpoint directory at {directory}; expected a directory with config.json and weights")
    if not path.is_file():
        raise CheckpointError(f"no config.json in {directory}; a checkpoint directory holds config.json and weights")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} holds a {type(config).__name__}, expected an object")
    return config
