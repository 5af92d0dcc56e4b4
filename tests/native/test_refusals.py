"""Programs and calls that can't be: refused with what was given and what was expected, before anything is written."""

from __future__ import annotations

import re

import numpy as np
import pytest
from native_reference import ADD, ATTEND, EMBED, MEAN, NORM, PRODUCT, TAKE
from native_rigs import Caches, Rig

from foveal.runtime.engines.native_library import NativeLibrary

WEIGHTS = np.zeros(4096, np.float32)


@pytest.mark.parametrize(
    ("rig", "text"),
    [
        (Rig([8, 8], [0], 1), "nothing writes the output"),
        (Rig([8, 8], [0], 1).step(99, [0], [1]), "step 0 (unknown): there is no step of kind 99"),
        (Rig([8, 8], [0], 1).step(ADD, [0, 7], [1]), "step 0 (add): reads a buffer that is not one"),
        (Rig([8, 8, 8], [0], 2).step(ADD, [0, 1], [2]), "step 0 (add): reads a buffer that nothing has written"),
        (Rig([8, 9], [0], 1).step(ADD, [0, 0], [1]), "width of the result, got 9, expected 8"),
        (Rig([8, 8], [0], 1).step(PRODUCT, [0], [1], [0, 9, 8], data=[WEIGHTS]), "width of the input, got 8, expected 9"),
        (Rig([8, 8], [0], 1).step(PRODUCT, [0], [1], [0, 8, 8]), "step 0 (product): weights are missing"),
        (Rig([8, 8], [0], 1).step(PRODUCT, [0], [1], [9, 8, 8], data=[WEIGHTS]), "there is no such format"),
        (Rig([8, 8], [0], 1).step(PRODUCT, [0], [1], [3, 8, 8, 12], data=[WEIGHTS]), "blocks must be multiples of 8 rows"),
        (Rig([8, 8], [0], 1).step(PRODUCT, [0], [1], [1, 8, 8], data=[WEIGHTS]), "the input's scale must be positive"),
        (Rig([9, 4], [0], 1).step(MEAN, [0], [1], [2]), "width of the parts together, got 9, expected 8"),
        (Rig([8, 8], [0], 1).step(NORM, [0], [1], [5], data=[WEIGHTS]), "there is no such norm"),
        (Rig([8, 8], [0], 1).step(EMBED, [0], [1], [0, 4, 8, 0, 1], data=[WEIGHTS]), "reads rows as ids"),
        (Rig([8, 8], [0], 1).step(TAKE, [0], [0]), "rows can't be taken from the buffer that they are put in"),
        (Rig([24, 8], [0], 1).step(ATTEND, [0], [1], [0, 1, 1, 1, 8, 8]), "a cache is not one"),
        (Rig([8, 8, 8], [0], 2).step(TAKE, [0], [1]).step(ADD, [0, 1], [2]), "mixes rows of the call with logit rows"),
        (Rig([8, 8], [0], 1, parts=3).step(ADD, [0, 0], [1]), "an input's parts must divide its width"),
    ],
)
def test_programs(best: NativeLibrary, rig: Rig, text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        rig.open(best)


def attention() -> Rig:
    return Rig([24, 8], [0], 1, caches=2).step(ATTEND, [0], [1], [0, 1, 1, 1, 8, 8], [1.0])


@pytest.mark.parametrize(
    ("rows", "given", "text"),
    [
        (17, {}, "a call has 1 to 16 rows, got 17"),
        (2, {"index": [0, 20]}, "row index 20 in a cache of 20 rows"),
        (2, {"index": [-1, 0]}, "row index -1 in a cache of 20 rows"),
        (3, {"slots": [0, 1, 0]}, "rows of slot 0 stand apart; put them together"),
    ],
)
def test_calls(best: NativeLibrary, rows: int, given: dict, text: str) -> None:
    caches = Caches(*(np.ones((2, 1, 20, 8), np.float32) for _ in range(2)))
    with pytest.raises(IndexError, match=text):
        attention().open(best).run(np.zeros((rows, 24)), caches=caches, **given)
    assert all((cache == 1).all() for cache in caches.arrays)


@pytest.mark.parametrize("token", [-1, 4])
def test_ids(best: NativeLibrary, token: int) -> None:
    rig = Rig([1, 8], [0], 1, ids=[0]).step(EMBED, [0], [1], [0, 4, 8, 0, 1], data=[WEIGHTS])
    with pytest.raises(IndexError, match=f"id {token} of a vocabulary of 4"):
        rig.open(best).run(np.array([[token]]))


def test_logit_rows(best: NativeLibrary) -> None:
    rig = Rig([8, 8], [0], 1).step(TAKE, [0], [1])
    with pytest.raises(IndexError, match="logit row 2 of 2 rows"):
        rig.open(best).run(np.zeros((2, 8)), logit_rows=[2])


def test_threads(best: NativeLibrary) -> None:
    assert not best.pool_open(65, 0)
    assert best.error() == "a pool has 1 to 64 threads, got 65"


def test_an_instruction_set_that_is_not_there(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    from native_library import built_library

    monkeypatch.setenv("FOVEAL_NATIVE_ISA", "vax")
    library = NativeLibrary(shutil.copy(built_library(), tmp_path / "vax.so"))
    assert library.isa == "none"
    with pytest.raises(ValueError, match="no instruction set of the name in FOVEAL_NATIVE_ISA"):
        Rig([8, 8], [0], 1).step(ADD, [0, 0], [1]).open(library)
