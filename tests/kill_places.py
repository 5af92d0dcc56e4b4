"""Every call to the file system that replacing a directory makes, as the last one of its process. Prints how many there were.

Run as `python kill_places.py KIND`; KIND is how the directory is replaced.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from kills import run_and_kill

from foveal import places

OWN = ("manifest", "stages", "tokenizer")
FOREIGN = "README.md"


def fill(directory: Path, name: str) -> None:
    """A bundle, as far as places know: `tokenizer` only in the old one."""
    (directory / "stages").mkdir()
    for file in ("manifest", "stages/1", f"stages/{name}"):
        (directory / file).write_text(name)
    if name == "old":
        (directory / "tokenizer").write_text(name)


def content(path: Path) -> dict[str, str]:
    """What a reader finds."""
    return {str(file.relative_to(path)): file.read_text() for file in path.rglob("*") if file.is_file()}


def replace(path: Path) -> None:
    """What is killed."""
    with places.new_directory(path, OWN) as directory:
        fill(directory, "new")


def main(kind: str) -> int:
    """Returns the number of calls; raises if something was lost, or left."""
    with tempfile.TemporaryDirectory() as root:
        path, call = Path(root).resolve() / "b", 0
        if kind == "two renames":
            places._exchange = lambda *_: False
        expected = {"new": {"manifest": "new", "stages/1": "new", "stages/new": "new"}, "old": {}}
        foreign = {FOREIGN: "mine"} if kind == "in place" else {}
        while True:
            call += 1
            shutil.rmtree(path, ignore_errors=True)
            if kind != "new":
                path.mkdir()
                fill(path, "old")
                expected["old"] = content(path)
            for name, text in foreign.items():
                (path / name).write_text(text)
            was_killed = run_and_kill(lambda: replace(path), at_call=call)
            if kind == "one exchange":
                found = {name: text for name, text in content(path).items() if not name.startswith(".foveal")}
                assert found in expected.values(), (call, found)
            places.settle(path, OWN)
            found = content(path) if path.exists() else {}
            assert found in [{**whole, **foreign} for whole in expected.values()], (call, found)
            assert os.listdir(root) in ([path.name], [] if kind == "new" else [path.name]), (call, os.listdir(root))
            if not was_killed:
                assert found == {**expected["new"], **foreign}
                return call - 1
            if call % 5 == 0:
                replace(path)
                assert content(path) == {**expected["new"], **foreign}, call


if __name__ == "__main__":
    print(main(sys.argv[1]))
