"""Threads: as many as are asked for, however few the machine has; several callers; processes that fork."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import sleep

import numpy as np
import pytest
from native_library import built_library
from native_reference import PRODUCT
from native_rigs import Opened, Rig, packed

from foveal.runtime.engines.native_library import NativeLibrary

WIDTH = 256


def products(count: int = 6) -> Rig:
    """Large enough to be divided."""
    rng, rig = np.random.default_rng(0), Rig([WIDTH, WIDTH], [0], 1)
    for number in range(count):
        rig.step(PRODUCT, [0 if number == 0 else 1], [1], [0, WIDTH, WIDTH], data=[packed(rng, "fp32", WIDTH, WIDTH, 0)])
    return rig


def rows(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((3, WIDTH)).astype(np.float32)


@pytest.mark.parametrize("threads", [2, 3, 16, 64])
@pytest.mark.parametrize("spin_us", [0, 50])
def test_more_threads_than_there_is_room_for(best: NativeLibrary, threads: int, spin_us: int) -> None:
    expected = products().open(best).run(rows())
    opened = products().open(best, threads, spin_us)
    for _ in range(200):
        np.testing.assert_array_equal(opened.run(rows()), expected)


def test_workers_that_have_gone_to_sleep(best: NativeLibrary) -> None:
    expected, opened = products().open(best).run(rows()), products().open(best, 3, spin_us=0)
    for _ in range(20):
        sleep(0.002)
        np.testing.assert_array_equal(opened.run(rows()), expected)


@pytest.mark.parametrize("threads", [1, 2])
def test_several_callers_of_one_stage(best: NativeLibrary, threads: int) -> None:
    """One of them gets the pool, the others compute alone; each in memory of its own."""
    opened = products().open(best, threads)
    expected = [products().open(best).run(rows(seed)) for seed in range(8)]

    def many(opened: Opened, seed: int) -> bool:
        return all(np.array_equal(opened.run(rows(seed)), expected[seed]) for _ in range(50))

    with ThreadPoolExecutor(8) as callers:
        assert all(callers.map(lambda seed: many(opened, seed), range(8)))


def test_a_child_process_starts_workers_of_its_own(best: NativeLibrary) -> None:
    """Also where the parent was computing in another thread when it forked."""
    script = """
        import os, sys, threading
        from pathlib import Path
        sys.path.insert(0, sys.argv[1])
        import numpy as np
        from foveal.runtime.engines.native_library import NativeLibrary
        sys.path.insert(0, str(Path(sys.argv[1]) / "native"))
        from test_pool import products, rows
        library = NativeLibrary(Path(sys.argv[2]))
        opened = products().open(library, 2)
        expected = opened.run(rows())
        stop = threading.Event()
        def compute():
            while not stop.is_set():
                opened.run(rows())
        busy = threading.Thread(target=compute)
        busy.start()
        for _ in range(20):
            child = os.fork()
            if child == 0:
                same = all(np.array_equal(opened.run(rows()), expected) for _ in range(50))
                os._exit(0 if same else 3)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        stop.set()
        busy.join()
        assert np.array_equal(opened.run(rows()), expected)
    """
    tests = Path(__file__).resolve().parent.parent
    command = [sys.executable, "-c", textwrap.dedent(script), str(tests), str(built_library())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
