"""One pool of threads for a process: it can't be undone, so each test has a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest
from specimens import Zoo

from foveal import ConfigError, share_threads


def run(code: str, *arguments: object) -> str:
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_engines_use_the_shared_pool_and_the_logits_stay(zoo: Zoo) -> None:
    code = """
import sys, foveal
before = foveal.load(sys.argv[1], threads=1).session().advance([[1, 2, 3, 4, 5]])
foveal.share_threads(2)
model = foveal.load(sys.argv[1])
print(model.threads, abs(model.session().advance([[1, 2, 3, 4, 5]]) - before).max() < 1e-5)
"""
    assert run(code, zoo["nested"].bundle.path) == "2 True"


def test_another_number_of_threads_is_refused_once_they_are_shared(zoo: Zoo) -> None:
    code = """
import sys, foveal
foveal.share_threads(2)
foveal.share_threads(2)
for call in (lambda: foveal.share_threads(1), lambda: foveal.load(sys.argv[1], threads=1)):
    try:
        call()
    except foveal.ConfigError as error:
        print(error)
"""
    assert run(code, zoo["vanilla"].bundle.path).splitlines() == [
        "this process shares 2 threads already, got 1; the number is fixed once it is set",
        "this process shares a pool of 2 threads, got threads=1; leave it out",
    ]


def test_a_pool_has_threads() -> None:
    with pytest.raises(ConfigError, match="threads must be at least 1, got 0"):
        share_threads(0)


def test_the_command_shares_one_pool(zoo: Zoo) -> None:
    """As `main` does, and as tests that call its parts do not; of graphs alone (tests/cli/test_threads.py)."""
    code = """
import sys
from pathlib import Path
from foveal.cli.threads import own_process, pool_threads
from foveal.runtime.engines.onnxruntime_library import shared_threads
bundle = Path(sys.argv[1])
print(pool_threads(bundle, "cpu", 2, native=False), shared_threads())
own_process()
print(pool_threads(bundle, "cpu", 2, native=False), shared_threads())
"""
    assert run(code, zoo["vanilla"].bundle.path).splitlines() == ["2 None", "2 2"]
