"""The folder in which people type what the pages say: small models under the names that the pages use, and some texts."""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import torch
from page_runner import command_line
from precisions import write_text
from specimens import random_model
from store import Store

from foveal.export import convert, convert_model
from foveal.models.checkpoint import save_checkpoint

ROOT = Path(__file__).parent.parent
SIZES = {"vocab_size": 256, "dim": 32, "heads": 2, "head_dim": 16, "ff_dim": 64, "max_positions": 2048}
HIERARCHY = "1@1 1@16 1@1"
TEXTS = (
    *("calibration.txt", "evaluation.txt", "text.txt", "text/a.txt"),
    *("models/checkpoints/text/calibration.txt", "models/checkpoints/text/evaluation.txt"),
    *(f"{name}/{part}/a.txt" for name in ("books", "mixed") for part in ("train", "valid")),
)
MADE = (
    "foveal convert models/checkpoints/hourglass hourglass.bundle",
    "foveal build hourglass.bundle small.bundle --precision int8 --calibration calibration.txt",
)
"""Commands of the pages that make it; pages find what they wrote."""
CHECKPOINT = "models/checkpoints/hourglass"
NOTAGEN = ROOT / "tests" / "golden_families" / "notagen_tiny"


def workshop(store: Store) -> Path:
    """Made once in a run; work in a copy."""
    return store.once("workshop", _make)


def _make(directory: Path) -> None:
    for seed, name in enumerate(TEXTS):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        write_text(directory / name, seed=seed)
    checkpoint = directory / CHECKPOINT
    save_checkpoint(random_model(HIERARCHY, **SIZES), checkpoint)
    shutil.copyfile(ROOT / "models" / "checkpoints" / "bytes_mixed" / "tokenizer.json", checkpoint / "tokenizer.json")
    shutil.copytree(checkpoint, directory / "my-checkpoint")
    with contextlib.chdir(directory):
        for command in MADE:
            assert command_line(shlex.split(command)[1:]) == 0, command
    convert_model(random_model(HIERARCHY, 7, **SIZES), directory / "other.bundle", tokenizer="bytes")
    convert(NOTAGEN, directory / "music.bundle")
    torch.save({"model": {"w": torch.zeros(2)}}, directory / "checkpoint.pt")
    _prompts(directory)


def _prompts(directory: Path) -> None:
    rng = np.random.default_rng(0)
    np.save(directory / "prompt.npy", rng.integers(3, 100, 32))
    np.save(directory / "songs.npy", rng.integers(3, 100, 8192))
    rng.integers(3, 100, 512).astype("<u2").tofile(directory / "held-out.bin")
    (directory / "prompts").mkdir()
    for place in ("prompts.txt", "prompts/a.txt"):
        (directory / place).write_text("It was\nThe sea\n")
    (directory / "more.jsonl").write_text('{"prompt": "He said"}\n')
    (directory / "schema.json").write_text(json.dumps({"type": "integer", "minimum": 0, "maximum": 9}))
    (directory / "sum.lark").write_text("start: NUMBER\nNUMBER: /[0-9]{1,3}/\n")


NAMES = {
    **dict.fromkeys(("B", "big", "build/demo/hourglass", "model", "new"), "hourglass"),
    "wrong": "other",
}
"""Other names that pages have for a bundle."""


def lay_out(made: Path, directory: Path) -> None:
    """A copy to work in, with a bundle under every name that it has on a page."""
    shutil.copytree(made, directory, dirs_exist_ok=True)
    (directory / "build" / "demo").mkdir(parents=True)
    for name, bundle in NAMES.items():
        (directory / f"{name}.bundle").symlink_to(directory / f"{bundle}.bundle")
    (directory / "tuesday.json").symlink_to(directory / "monday.json")  # which a page's first command writes
