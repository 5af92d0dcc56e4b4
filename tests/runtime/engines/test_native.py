"""Stages that run native steps: the same text in whatever calls and batches, and near ONNX Runtime's."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import numpy as np
import pytest
from batches import BatchWalk, wander
from exactness import EXACT, Walk
from hypothesis import given
from hypothesis import strategies as st
from natively import LIBRARIES, library_named, native_engines, require_native
from precisions import PrecisionZoo, distance, logits
from specimens import ZOO, Zoo, random_ids

from foveal.bundle import Bundle
from foveal.contract.program import MOST_ROWS
from foveal.errors import EngineMismatchError
from foveal.precision import Plan
from foveal.runtime.backends import cpu_engines
from foveal.runtime.batches.batch import Batch
from foveal.runtime.engines.native import NativeEngine
from foveal.runtime.engines.onnxruntime import OnnxRuntimeStage
from foveal.runtime.native_engines import HostEngine
from foveal.runtime.rows import Array, Block
from foveal.runtime.session import Session

INTEGERS = ("int8", "w8", "w4")
CLOSE = {"fp32": EXACT, "int8": 0.05, "w8": 0.05, "w4": 0.1}
"""Against ONNX Runtime's logits: in integers the last bit of a sum may move an activation to the next step."""
calls = st.lists(
    st.one_of(
        st.tuples(st.just("advance"), st.integers(1, MOST_ROWS)),
        st.tuples(st.just("rewind"), st.integers(1, 20)),
        st.tuples(st.sampled_from(["snapshot", "restore", "fork"]), st.just(0)),
    ),
    min_size=3,
    max_size=8,
)
"""What may be done with a session, in calls of as many tokens as a program takes at most."""


class Opened:
    """Native engines of the bundles of a run, each opened once with a library."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], tuple[HostEngine, ...]] = {}

    def __call__(self, bundle: Bundle, library: str = "library") -> tuple[HostEngine, ...]:
        key = str(bundle.path), library
        if key not in self._found:
            self._found[key] = native_engines(bundle, library_named(library))
            require_native(self._found[key])
        return self._found[key]


opened = Opened()


def one_by_one(engines: tuple[HostEngine, ...], bundle: Bundle) -> Callable[[Array], Array]:
    """Logits of ids `[B, L]`, decoded token by token and sequence by sequence."""
    session = Session(engines, bundle.manifest.model)

    def decode(ids: Array) -> Array:
        found = []
        for sequence in ids:
            session.reset()
            found.append(np.concatenate([session.advance([[token]])[0] for token in sequence]))
        return np.stack(found)

    return decode


def check_calls(bundle: Bundle, path: list[tuple[str, int]], batch: int, library: str = "library") -> None:
    """Whatever is done, every logit has the bits that it has when tokens are decoded one by one."""
    engines = opened(bundle, library)
    walk = Walk(Session(engines, bundle.manifest.model, batch), one_by_one(engines, bundle), tolerance=0.0)
    for step, tokens in path:
        walk.take(step, tokens)


@given(name=st.sampled_from(sorted(ZOO)), path=calls, batch=st.sampled_from([1, 1, 2]))
def test_logits_are_the_same_however_a_text_is_cut(zoo: Zoo, name: str, path: list[tuple[str, int]], batch: int) -> None:
    """In fp32: every way of resampling, both kinds of positions, empty stacks, heads that caches pad."""
    check_calls(zoo[name].bundle, path, batch)


@given(
    name=st.sampled_from(["vanilla", "resampled", "nested"]),
    precision=st.sampled_from(INTEGERS),
    path=calls,
    batch=st.sampled_from([1, 1, 2]),
)
def test_logits_in_integers_are_the_same_however_a_text_is_cut(
    precise: PrecisionZoo, name: str, precision: str, path: list[tuple[str, int]], batch: int
) -> None:
    """Also where activations are rounded block by block, and with int8 caches: what speculation rests on."""
    check_calls(precise[name].build(Plan(default=precision)), path, batch)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("precision", ["fp32", *INTEGERS])
@pytest.mark.parametrize("name", ["vanilla", "resampled", "nested"])
def test_logits_are_near_those_of_the_graphs(precise: PrecisionZoo, name: str, precision: str, library: str) -> None:
    """Of steps and of chunks, behind a prompt that the graphs have read into the same caches."""
    found = precise[name]
    bundle = found.full if precision == "fp32" else found.build(Plan(default=precision))
    ids, chunks = found.ids(1, 52), [24, 1, 1, 5, 16, 4, 1]
    got = logits(bundle, opened(bundle, library), ids, chunks)
    assert distance(got, logits(bundle, cpu_engines(bundle), ids, chunks)) <= CLOSE[precision]


@pytest.mark.parametrize("embedding", [False, True])
def test_tables_of_8_bits_are_read_as_the_graphs_read_them(precise: PrecisionZoo, embedding: bool) -> None:
    """Also of positions, in the same step."""
    bundle = precise["vanilla"].build(Plan(default="int8", embedding=embedding))
    ids = precise["vanilla"].ids(1, 12)
    got = logits(bundle, native_engines(bundle, library_named("numpy")), ids, [1] * 12)
    assert distance(got, logits(bundle, cpu_engines(bundle), ids, [1] * 12)) <= CLOSE["int8"]


@pytest.mark.parametrize("precision", ["fp32", "w4"])
def test_a_slot_has_the_logits_of_a_session(precise: PrecisionZoo, precision: str) -> None:
    """Sequences that come, go, rewind and fork, each at a position of its own; to the bit, as prompts are short."""
    found = precise["nested"]
    bundle = found.full if precision == "fp32" else found.build(Plan(default=precision))
    engines, capacity = opened(bundle), 64
    for policy in ("staggered", "aligned"):
        batch = Batch(engines, bundle.manifest.model, 4, capacity, policy, prefill_seconds=0)
        walk = BatchWalk(batch, lambda: Session(engines, bundle.manifest.model, capacity=capacity), CLOSE[precision])
        wander(walk, Random(0), 60, capacity, bundle.manifest.model.vocab_size)


@given(slots=st.lists(st.integers(0, 30), min_size=2, max_size=MOST_ROWS))
def test_rows_of_several_slots_are_those_of_each_alone(zoo: Zoo, slots: list[int]) -> None:
    """One firing of each, at places of their own: rows and caches have the same bits as in a call for each."""
    engine = next(one for one in opened(zoo["nested"].bundle) if one.spec.name == "2.post")
    random, batch = np.random.default_rng(len(slots)), len(slots)
    caches = engine.new_caches(batch, 31)
    for cache in caches:
        cache[...] = random.standard_normal(cache.shape)
    alone = [[cache[b : b + 1].copy() for cache in caches] for b in range(batch)]
    rows = [random.standard_normal((1, batch, given.width)).astype(np.float32) for given in engine.spec.inputs]
    output = np.zeros((engine.spec.output_rows, batch, engine.spec.width), np.float32)
    engine.attach(caches, batch, 31).run_each(np.array(slots), [Block.of(one) for one in rows], Block.of(output), None)
    for b, first in enumerate(slots):
        own = np.zeros((engine.spec.output_rows, 1, engine.spec.width), np.float32)
        taken = [Block.of(np.ascontiguousarray(one[:, b : b + 1])) for one in rows]
        engine.attach(alone[b], 1, 31).run(first, 1, taken, Block.of(own), None)
        assert np.array_equal(own[:, 0], output[:, b])
        assert all(np.array_equal(cache[b : b + 1], one) for cache, one in zip(caches, alone[b], strict=True))


def test_more_rows_than_a_program_takes_run_in_the_graph(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the same caches: what comes after is the same as behind a session of graphs alone."""
    bundle = zoo["nested"].bundle
    engines, ran = opened(bundle), []
    session = Session(engines, bundle.manifest.model)
    run = OnnxRuntimeStage.run
    monkeypatch.setattr(OnnxRuntimeStage, "run", lambda self, *args: (ran.append(self._spec.name), run(self, *args)))
    ids = random_ids(1, MOST_ROWS + 3)
    session.advance(ids[:, :MOST_ROWS])
    assert ran == []
    session.reset()
    got = [session.advance(ids[:, : MOST_ROWS + 1]), session.advance(ids[:, MOST_ROWS + 1 :])]
    assert ran == ["1.pre", "1.post"]
    graphs = Session(cpu_engines(bundle), bundle.manifest.model)
    assert distance(np.concatenate(got, 1), graphs.advance(ids)) <= EXACT


def test_an_id_beyond_the_table_is_refused_by_the_library(zoo: Zoo) -> None:
    """Sessions refuse it before; an engine that is given one anyway reads nothing beyond its table."""
    engine = next(one for one in opened(zoo["vanilla"].bundle) if isinstance(one, NativeEngine))
    stage, output = engine.bind(1, 4), Block.of(np.zeros((1, 1, engine.spec.width), np.float32))
    for token in (-1, 41, 2**40):
        with pytest.raises(EngineMismatchError, match='program of stage "1" does not run: .*41.*; build the engines again'):
            stage.run(0, 1, [Block.of(np.array([[token]]))], output, Block.of(np.zeros(1, np.int64)))


def test_a_row_beyond_the_caches_is_refused_by_the_library(zoo: Zoo) -> None:
    """Nothing is written."""
    engine = next(one for one in opened(zoo["vanilla"].bundle) if isinstance(one, NativeEngine))
    caches = engine.new_caches(2, 4)
    stage, output = engine.attach(caches, 2, 4), Block.of(np.zeros((2, 1, engine.spec.width), np.float32))
    for first in (4, 2**40, -1):
        with pytest.raises(EngineMismatchError, match="does not run"):
            stage.run_each(np.array([0, first]), [Block.of(np.array([[1], [1]]))], output, Block.of(np.zeros(1, np.int64)))
    assert not any(cache.any() for cache in caches)
