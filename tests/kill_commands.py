"""Real commands that are killed at random points: half of them in front of a call to the file system, half after a random time.

Run as `python kill_commands.py DIRECTORY COUNT SEED COMMAND...`; prints a line of JSON for each command. After each kill the
bundle must be the old one or the new one, whole, and the next command that looks at it must leave nothing of the killed one.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from kills import Calls, run_and_kill
from specimens import random_model

from foveal import build, open_bundle
from foveal.bundle import MANIFEST
from foveal.calibration import calibrate
from foveal.export import convert_model

torch.set_num_threads(1)  # a fork has none of the threads that OpenMP began before it, and would wait for them for ever

OLD = {"convert": "old", "calibrate": "full", "build": "old", "add": "full"}
"""What lies at the place before."""


def commands(root: Path, path: Path) -> dict[str, Callable[[], object]]:
    """Each writes a bundle at `path`, or into it."""
    text = root / "text"
    text.write_text("the sea and the sun and the wind " * 40)
    convert_model(random_model("1@1", vocab_size=256), root / "full", tokenizer="bytes")
    build(root / "full", root / "old", "w4")
    another = random_model("1@1", vocab_size=256, head_bias=True)
    return {
        "convert": lambda: convert_model(another, path, tokenizer="bytes"),
        "calibrate": lambda: calibrate(path, [text], threads=1),
        "build": lambda: build(root / "full", path, "w8"),
        "add": lambda: build(path, target="cuda"),
    }


def look(path: Path, folder: Path) -> str:
    """The manifest of a bundle that is whole, with nothing around it and no half reports in it."""
    opened = open_bundle(path)
    assert os.listdir(folder) == [path.name], os.listdir(folder)
    strange = {file.name for file in path.rglob(".*")} | set(os.listdir(path)) - {MANIFEST, "stages", "engines", "reports"}
    assert not strange, strange
    return json.dumps(json.loads((path / MANIFEST).read_text())["files"], sort_keys=True) if opened else ""


def kill(command: Callable[[], object], old: Path, path: Path, count: int, rng: random.Random) -> dict[str, object]:
    """Kill a command `count` times; what came of it."""

    def again() -> None:
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(old, path)

    again()
    before, calls, began = look(path, path.parent), Calls(0, lambda: None), time.monotonic()
    command()
    total, seconds, after = calls.count, time.monotonic() - began, look(path, path.parent)
    found = {"kills": 0, "old": 0, "new": 0, "left": 0, "calls": total, "seconds": round(seconds, 2), "problems": []}
    for index in range(count):
        again()
        point = {"at_call": rng.randint(1, total)} if index % 2 else {"after_seconds": rng.uniform(0.001, seconds)}
        was_killed = run_and_kill(command, **point)
        found["kills"] += was_killed
        found["left"] += sorted(os.listdir(path.parent)) != [path.name] or (path / ".foveal").exists()
        try:
            state = look(path, path.parent)
            assert state in (before, after), "neither the old nor the new bundle"
            found["new" if state == after else "old"] += 1
            if index % 10 == 0:
                command()
                assert look(path, path.parent) == after, "the next run made something else"
        except Exception as error:
            found["problems"].append(f"{point}: {type(error).__name__}: {error}")
    return found


def main(directory: str, count: str, seed: str, *names: str) -> None:
    """Kill each of the commands."""
    root = Path(directory)
    path = root / "place" / "b"
    path.parent.mkdir(parents=True)
    found = commands(root, path)
    for name in names:
        outcome = kill(found[name], root / OLD[name], path, int(count), random.Random(int(seed)))
        print(json.dumps({"command": name, **outcome}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
