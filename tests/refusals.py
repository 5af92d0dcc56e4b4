"""Every call to the file system that replacing a directory makes fails once, with a chosen error."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from kill_places import OWN, content, fill, replace
from kills import Calls

from foveal import StorageError, places


def main(directory: str, number: int) -> None:
    """Prints how many calls there were; raises if an error was not one line with its path, or something was lost."""
    path, call = Path(directory).resolve() / "b", 0

    def refuse() -> None:
        raise OSError(number, os.strerror(number))

    calls = Calls(0, refuse)
    while True:
        call += 1
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        fill(path, "old")
        old = content(path)
        calls.count, calls.limit = 0, call
        said = ""
        try:
            replace(path)
        except StorageError as error:
            said = str(error)
        if said:
            assert "\n" not in said, said
            assert all(part in said for part in (str(path.parent), os.strerror(number), "; ")), said
        reached = calls.count >= call
        calls.limit = 0
        places.settle(path, OWN)
        found = content(path)
        assert found == old if said else found["manifest"] == "new", (call, found)
        assert found in (old, {"manifest": "new", "stages/1": "new", "stages/new": "new"}), (call, found)
        assert os.listdir(directory) == ["b"], (call, os.listdir(directory))
        if not reached:
            print(call - 1)
            return
