"""What runs in a second thread touches nothing that others use meanwhile, wherever a session goes.

`tests/beside.py` has the checker: it knows which memory every call reads and writes, and what may run at the same time.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from beside import Access, CheckedBeside, Watch, block, watched
from exactness import EXACT, Walk
from hypothesis import given
from hypothesis import strategies as st
from programs import Program, ahead, borrowing, forgetful, host_engines, hourglass, info, meaning, paged, top_down
from specimens import random_model
from torch_sessions import logits_of, torch_session

from foveal.contract import late_stages
from foveal.export import convert_model
from foveal.models.architecture import Architecture
from foveal.models.readers.loading import load_model
from foveal.runtime import load
from foveal.runtime.session import Session

TESTS = Path(__file__).parent.parent
CHECKPOINTS = {
    name: TESTS / "golden_families" / name
    for name in (
        "bgpt_tiny",
        "block_transformer_tiny",
        "megabyte_4x3x5_rotary",
        "megabyte_7x5_learned",
        "notagen_tiny",
        "trax_h3_attn",
    )
}
OWN = {
    "hourglass": ("1@1 1@2 1@8 1@2 1@1", {}),
    "top-down": ("1@8 1@4 1@1", {"architecture": "top-down"}),
    "bottom-up": ("1@1 1@4 1@16 1@1", {"architecture": "bottom-up"}),
    "retina": ("2@1", {"architecture": "retina", "positions": "learned", "max_positions": 256}),
    "vanilla": ("2@1", {}),
}
HAVE_LATE_STAGES = ("megabyte_4x3x5_rotary", "megabyte_7x5_learned", "top-down")

programs = st.one_of(
    st.builds(hourglass, st.integers(2, 4), st.integers(2, 4)),
    st.builds(top_down, st.integers(2, 16)),
    st.builds(ahead, st.integers(2, 5), st.integers(2, 3), st.booleans()),
    st.builds(forgetful, st.integers(2, 6), st.integers(1, 4), st.integers(1, 3), st.booleans()),
    st.builds(borrowing, st.integers(1, 5)),
    st.builds(paged, st.integers(2, 5), st.integers(1, 9)),
)
by_token = st.lists(
    st.one_of(
        st.tuples(st.just("tokens"), st.integers(1, 25)),
        st.tuples(st.just("advance"), st.sampled_from([2, 7, 24])),
        st.tuples(st.just("rewind"), st.integers(1, 20)),
        st.tuples(st.sampled_from(["snapshot", "restore", "fork"]), st.just(0)),
    ),
    min_size=4,
    max_size=12,
)
"""As `paths`, most of it token by token: only such steps run anything beside."""


def model_of(family: str) -> Architecture:
    """A small one."""
    if family in CHECKPOINTS:
        return load_model(CHECKPOINTS[family]).model
    hierarchy, choices = OWN[family]
    return random_model(hierarchy, **choices)


def go(walk: Walk, path: list[tuple[str, int]]) -> None:
    """Take a session along a path."""
    for step, tokens in path:
        for _ in range(tokens if step == "tokens" else 1):
            walk.take("advance" if step == "tokens" else step, 1 if step == "tokens" else tokens)


@given(programs, st.integers(1, 2), st.booleans(), by_token)
def test_of_any_program(program: Program, batch: int, at_once: bool, path: list[tuple[str, int]]) -> None:
    """Whatever its stages are."""
    with pytest.MonkeyPatch.context() as patch:
        engines, _ = watched(host_engines(program), patch, at_once)
        go(Walk(Session(engines, info(), batch, overlap=True), partial(meaning, program)), path)


@pytest.mark.parametrize("family", [*CHECKPOINTS, *OWN])
def test_who_has_stages_that_run_beside(family: str) -> None:
    """Those that are checked below."""
    assert bool(late_stages(torch_session(model_of(family)).specs)) == (family in HAVE_LATE_STAGES)


@pytest.mark.parametrize("family", HAVE_LATE_STAGES)
def test_of_any_family(family: str) -> None:
    """Its stages as PyTorch computes them, of which the late ones do run beside."""
    model, started = model_of(family), 0
    plain = torch_session(model)

    @given(st.booleans(), by_token)
    def goes_anywhere(at_once: bool, path: list[tuple[str, int]]) -> None:
        nonlocal started
        with pytest.MonkeyPatch.context() as patch:
            engines, watch = watched(plain.engines, patch, at_once)
            go(Walk(Session(engines, plain.model, overlap=True), partial(logits_of, model)), path)
            started += watch.started

    goes_anywhere()
    assert started > 0


def test_of_engines_in_a_thread(tmp_path: Path) -> None:
    """Of ONNX Runtime, whose kernels may use the memory of an output while they work; of a model whose late stages reset."""
    model = model_of("megabyte_4x3x5_rotary")
    loaded = load(convert_model(model, tmp_path / "bundle"), threads=2, overlap=True)
    walk = Walk(loaded.session(), partial(logits_of, model), EXACT)
    walk.moment = walk.session.snapshot()
    for seed in range(40):
        back = int(np.random.default_rng(seed).integers(1, 20))
        go(walk, [(("rewind", back), ("fork", 0), ("restore", 0))[seed % 3], ("tokens", 9 + seed % 5)])
        if walk.session.position > 30:
            walk.session.rewind(25)


class TestTheChecker:
    """It finds what it is there for."""

    @pytest.mark.parametrize("at_once", [True, False])
    @pytest.mark.parametrize(
        ("own", "other", "clashes"),
        [
            ((0, 4, True), (3, 2, False), True),
            ((0, 4, False), (3, 2, True), True),
            ((0, 4, True), (3, 2, True), True),
            ((0, 4, False), (3, 2, False), False),
            ((0, 4, True), (4, 2, True), False),
        ],
    )
    def test_two_accesses(self, own: tuple[int, int, bool], other: tuple[int, int, bool], clashes: bool, at_once: bool) -> None:
        """Of which one writes what the other reads or writes, between the start of a job and its end."""

        def access(stage: str, start: int, count: int, writes: bool) -> Access:
            return Access.of(stage, "rows", block(start, count), writes)

        watch = Watch()
        beside = CheckedBeside(watch, at_once)
        watch.see(access("before", *other))
        beside.start(lambda: watch.see(access("coarse", *own)))
        watch.see(access("fine", *other))
        if clashes:
            with pytest.raises(AssertionError, match="fine (reads|writes) rows while coarse may use its rows"):
                beside.join()
        else:
            beside.join()
