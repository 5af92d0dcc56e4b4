"""The store that the processes of a run share."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from store import Store

TESTS = Path(__file__).parent
ASKS = """
import os, sys, time
from pathlib import Path
from store import Store

def make(directory):
    (directory / "by").write_text(f"{os.getpid()}")
    time.sleep(0.2)
    (directory / "end").touch()

made = Store(Path(sys.argv[1])).once("models/tiny", make)
assert (made / "end").exists()
print((made / "by").read_text())
"""


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    """Nor by another store in the same directory."""
    made = [
        Store(tmp_path).once("a/b", lambda directory, text=text: (directory / text).touch()) for text in ("first", "second")
    ]
    assert made == [tmp_path / "a" / "b"] * 2
    assert [path.name for path in made[0].iterdir()] == ["first"]


def test_processes_that_ask_together_get_what_one_of_them_made(tmp_path: Path) -> None:
    """Whole: who is later waits."""
    command = [sys.executable, "-c", ASKS, str(tmp_path)]
    asking = [subprocess.Popen(command, cwd=TESTS, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    found = [(process.communicate()[0].strip(), process.returncode, str(process.pid)) for process in asking]
    assert [code for _, code, _ in found] == [0, 0, 0]
    makers = {maker for maker, _, _ in found}
    assert len(makers) == 1
    assert makers <= {pid for _, _, pid in found}


def test_what_failed_halfway_is_made_again(tmp_path: Path) -> None:
    """From an empty directory; what was raised is raised to whom asked."""

    def fail(directory: Path) -> None:
        (directory / "half").touch()
        raise ValueError("no")

    store = Store(tmp_path)
    with pytest.raises(ValueError, match="no"):
        store.once("a", fail)
    assert list(store.once("a", lambda directory: (directory / "whole").touch()).iterdir()) == [tmp_path / "a" / "whole"]


def test_what_was_changed_is_found(tmp_path: Path) -> None:
    """Other bytes or none; what was added is nobody's harm, be it another entry within."""
    store = Store(tmp_path)
    made = store.once("a", lambda directory: [(directory / name).write_text("as it was") for name in ("same", "other", "gone")])
    Store(made).once("inner", lambda directory: (directory / "more").touch())
    (made / "reports.json").touch()
    assert store.changed() == []
    (made / "other").write_text("as it is")
    (made / "gone").unlink()
    assert sorted(store.changed()) == [made / "gone", made / "other"]


def test_the_store_of_this_run_is_that_of_all_its_processes(store: Store, tmp_path_factory: pytest.TempPathFactory) -> None:
    """In the folder of the run, not in that of a process."""
    base = tmp_path_factory.getbasetemp()
    assert store.directory.parent in (base, base.parent)
    assert not store.directory.parent.name.startswith("popen-")
