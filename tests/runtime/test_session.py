"""The interpreter: any way of cutting a sequence gives the same logits, and state can go back, away and apart.

Three engine libraries stand behind the same sessions: a fake in numpy (does the dataflow hold for any program of stages?),
PyTorch (for any hierarchy?) and ONNX Runtime (does the real thing?).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from programs import CAPACITY, DIM, VOCABULARY, host_engines, hourglass, info, resident_engines, top_down
from specimens import ZOO, Zoo, full_forward, random_ids, random_model

from foveal import CapacityError, ConfigError, InputError
from foveal.export.comparison.torch_engine import TorchEngine
from foveal.runtime.backends import cpu_engines
from foveal.runtime.engines.base import Engine
from foveal.runtime.engines.fake import FakeEngine
from foveal.runtime.session import Session


def fake_hourglass(k: int, inner: int) -> list[Engine]:
    """Three scales, of strides 1, k and k * inner, firing when a token opens a group."""
    return host_engines(hourglass(k, inner))


def chunks_of(length: int) -> st.SearchStrategy[list[int]]:
    """Ways to cut a sequence into chunks."""
    return st.lists(st.integers(1, 24), min_size=length, max_size=length).map(lambda sizes: cut(sizes, length))


def cut(sizes: Sequence[int], length: int) -> list[int]:
    """The first sizes that fill `length`, the last one shortened."""
    chunks: list[int] = []
    for size in sizes:
        if sum(chunks) < length:
            chunks.append(min(size, length - sum(chunks)))
    return chunks


def run(session: Session, ids: np.ndarray, chunks: Sequence[int]) -> np.ndarray:
    """Logits of the sequence, chunk by chunk."""
    logits, start = [], 0
    for size in chunks:
        logits.append(session.advance(ids[:, start : start + size]))
        start += size
    return np.concatenate(logits, 1)


programs = st.one_of(
    st.builds(hourglass, st.integers(2, 5), st.integers(2, 5)),
    st.builds(top_down, st.integers(2, 16)),
).map(host_engines)


@given(programs, st.integers(1, 3), st.data())
def test_any_chunking_gives_the_same_logits(engines: list[Engine], batch: int, data: st.DataObject) -> None:
    """For programs that fire at the opening and at the close of groups."""
    length = data.draw(st.integers(1, 60))
    ids = random_ids(batch, length)
    whole = Session(engines, info(), batch).advance(ids)
    parts = run(Session(engines, info(), batch), ids, data.draw(chunks_of(length)))
    np.testing.assert_allclose(parts, whole, atol=1e-5)


@given(programs, st.data())
def test_a_rewound_session_is_one_that_never_went_on(engines: list[Engine], data: st.DataObject) -> None:
    """At any phase, by any number of tokens, as often as one likes."""
    ids, session = random_ids(1, 80), Session(engines, info())
    for _ in range(4):
        room = CAPACITY - session.position
        if room:
            session.advance(random_ids(1, data.draw(st.integers(1, room)), seed=session.position + 1))
        session.rewind(data.draw(st.integers(0, session.position)))
    session.rewind(session.position)
    expected = Session(engines, info()).advance(ids)
    np.testing.assert_allclose(session.advance(ids), expected, atol=1e-5)


def test_a_stage_fires_only_when_its_rule_says_so() -> None:
    """Strides 1, 3 and 12, over 25 tokens in uneven chunks; each firing happens once."""
    engines = fake_hourglass(3, 4)
    session = Session(engines, info())
    run(session, random_ids(1, 25), [1, 1, 9, 2, 12])
    assert session.fires == {"1.pre": 25, "k.pre": 9, "deep": 3, "k.post": 9, "1.post": 25}
    assert [engine.fired for engine in engines if isinstance(engine, FakeEngine)][2] == [0, 1, 2]


@st.composite
def hierarchies(draw: st.DrawFn) -> str:
    """Hourglasses of one to three scales over all factors."""
    factors = draw(st.lists(st.sampled_from([2, 3, 4, 5, 8, 16]), max_size=2))
    strides = np.cumprod([1, *factors]).tolist()
    outside = [f"{draw(st.integers(0, 2))}@{stride}" for stride in strides[:-1]]
    back = [f"{draw(st.integers(0, 2))}@{stride}" for stride in strides[-2::-1]]
    return " ".join([*outside, f"{draw(st.integers(1, 2))}@{strides[-1]}", *back[: len(outside)]])


@given(hierarchies(), st.sampled_from(["average", "linear", "attention"]), st.sampled_from(["repeat", "attention"]), st.data())
def test_any_hierarchy_in_any_chunks_is_the_full_forward(
    hierarchy: str, shortening: str, upsampling: str, data: st.DataObject
) -> None:
    """The interpreter with PyTorch stages, rewound once on the way, against the model as a whole."""
    model = random_model(hierarchy, shortening=shortening, upsampling=upsampling)
    batch, length = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 60))
    ids = random_ids(batch, length)
    session = Session([TorchEngine(stage) for stage in model.stages()], info(dim=model.config.dim), batch)
    session.advance(random_ids(batch, data.draw(st.integers(1, 30)), seed=9))
    session.reset()
    logits = run(session, ids, data.draw(chunks_of(length)))
    np.testing.assert_allclose(logits, full_forward(model, ids), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ZOO)
@given(data=st.data())
def test_engines_in_any_chunks_are_the_full_forward(name: str, zoo: Zoo, data: st.DataObject) -> None:
    """The real engines: any batch, any chunking, any rewind, any number of rows asked for."""
    model, bundle = zoo[name].model, zoo[name].bundle
    batch, length = data.draw(st.integers(1, 3)), data.draw(st.integers(2, 80))
    ids = random_ids(batch, length)
    expected = full_forward(model, ids)
    session = Session(cpu_engines(bundle), bundle.manifest.model, batch)
    logits = run(session, ids, data.draw(chunks_of(length)))
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    back = data.draw(st.integers(1, length))
    session.rewind(back)
    last = session.advance(ids[:, length - back :], last_only=True)
    np.testing.assert_allclose(last, expected[:, -1:], atol=1e-4)
    assert last.shape == (batch, 1, VOCABULARY)


@pytest.mark.parametrize("name", ZOO)
def test_nothing_is_copied_in_a_decode_step(name: str, zoo: Zoo) -> None:
    """Caches and rows are read and written in place, for one sequence and for several."""
    bundle = zoo[name].bundle
    for batch in (1, 3):
        session = Session(cpu_engines(bundle), bundle.manifest.model, batch)
        session.advance(random_ids(batch, 1))
        before = session.copied_bytes
        for token in range(20):
            session.advance(random_ids(batch, 1, seed=token))
        assert session.copied_bytes == before == 0


def test_a_prompt_of_several_sequences_is_staged_and_counted(zoo: Zoo) -> None:
    """The CPU kernel takes several rows of one sequence only; what that copies is not hidden."""
    bundle = zoo["vanilla"].bundle
    single, double = (Session(cpu_engines(bundle), bundle.manifest.model, batch) for batch in (1, 2))
    single.advance(random_ids(1, 9))
    double.advance(random_ids(2, 9))
    assert single.copied_bytes == 0
    assert double.copied_bytes > 0


@pytest.mark.parametrize("name", ["nested", "linear", "vanilla"])
def test_snapshots_and_forks(name: str, zoo: Zoo) -> None:
    """A fork goes its own way; a snapshot brings its moment back, into this session or another."""
    model, bundle = zoo[name].model, zoo[name].bundle
    engines, described = cpu_engines(bundle), bundle.manifest.model
    ids, other = random_ids(2, 40), random_ids(2, 40, seed=5)
    crossed = np.concatenate([ids[:, :23], other[:, 23:]], 1)
    session = Session(engines, described, 2)
    session.advance(ids[:, :23])
    moment, fork = session.snapshot(), session.fork()
    np.testing.assert_allclose(fork.advance(other[:, 23:]), full_forward(model, crossed)[:, 23:], atol=1e-4)
    np.testing.assert_allclose(session.advance(ids[:, 23:]), full_forward(model, ids)[:, 23:], atol=1e-4)
    session.restore(moment)
    assert session.position == 23
    assert moment.nbytes > 0
    np.testing.assert_array_equal(session.tokens, ids[:, :23])
    np.testing.assert_allclose(session.advance(other[:, 23:]), full_forward(model, crossed)[:, 23:], atol=1e-4)


def test_restoring_what_does_not_fit() -> None:
    """Another batch, or more tokens than there is room for."""
    engines = fake_hourglass(2, 2)
    session = Session(engines, info())
    session.advance(random_ids(1, 30))
    with pytest.raises(InputError, match="the snapshot has batch 1, this session 2"):
        Session(engines, info(), 2).restore(session.snapshot())
    with pytest.raises(CapacityError, match="the snapshot holds 30 tokens, this session at most 20; give it more capacity"):
        Session(engines, info(), 1, 20).restore(session.snapshot())


@pytest.mark.parametrize("value", [1.5, "2", None, True, [1]])
def test_numbers_that_are_none(value: Any) -> None:
    """Batch, capacity and tokens to rewind are integers, and nothing that passes for one."""
    engines = fake_hourglass(2, 2)
    with pytest.raises(ConfigError, match=f"batch must be an integer, got {re.escape(repr(value))}"):
        Session(engines, info(), value)
    with pytest.raises(InputError, match="tokens must be an integer"):
        Session(engines, info()).rewind(value)
    if value is not None:
        with pytest.raises(ConfigError, match="capacity must be an integer"):
            Session(engines, info(), capacity=value)
    Session(engines, info(), np.int64(2), capacity=np.int32(9)).rewind(np.uint8(0))


def test_restoring_what_is_no_snapshot() -> None:
    """The session is as it was."""
    session = Session(fake_hourglass(2, 2), info())
    with pytest.raises(InputError, match=r"expected what session.snapshot\(\) gave, got dict; hand that over"):
        session.restore({})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ids", "error", "reason"),
    [
        ([[1.0, 2.0]], InputError, "ids have dtype float64, expected integers"),
        ([["a"]], InputError, "expected integers"),
        ([1, 2], InputError, r"ids have shape \[2\], expected \[1, L\] with L >= 1"),
        ([[1], [2]], InputError, r"ids have shape \[2, 1\], expected \[1, L\]"),
        (np.zeros((1, 0), int), InputError, r"ids have shape \[1, 0\], expected \[1, L\] with L >= 1"),
        ([[]], InputError, r"ids have shape \[1, 0\], expected \[1, L\] with L >= 1: a row of ids for each sequence"),
        (7, InputError, r"ids have shape \[\], expected \[1, L\]"),
        ("some text", InputError, r"ids have shape \[\], expected \[1, L\]"),
        (None, InputError, r"ids have shape \[\], expected \[1, L\]"),
        ([[True]], InputError, "ids have dtype bool, expected integers below 41; convert them"),
        ([[None]], InputError, "ids have dtype object, expected integers"),
        ([[2**80]], InputError, "ids have dtype object, expected integers"),
        ([[2**63]], InputError, f"id {2**63} is outside the vocabulary"),
        (
            [[1, 2], [3]],
            InputError,
            "every row has as many ids; got rows of 1 and 2 ids: append as many of each",
        ),
        ([[[1], [2, 3]]], InputError, "every row has as many ids; got no array"),
        ([[3, 41]], InputError, "id 41 is outside the vocabulary; expected 0 <= id < 41"),
        ([[-1]], InputError, "id -1 is outside the vocabulary"),
        (np.zeros((1, 87), int), CapacityError, "the session holds 10 of at most 96 tokens, got 87 more; rewind or reset it"),
    ],
)
def test_ids_the_model_can_not_take(ids: Any, error: type[Exception], reason: str) -> None:
    """The message says what was got and expected, and the session is as it was."""
    engines, past = fake_hourglass(2, 3), random_ids(1, 10)
    session, untouched = Session(engines, info()), Session(engines, info())
    session.advance(past)
    untouched.advance(past)
    with pytest.raises(error, match=reason):
        session.advance(ids)
    np.testing.assert_array_equal(session.advance([[7]]), untouched.advance([[7]]))


def test_settings_a_session_can_not_have() -> None:
    """Batch and capacity are checked when it is opened."""
    engines = fake_hourglass(2, 2)
    with pytest.raises(ConfigError, match="batch must be at least 1, got 0"):
        Session(engines, info(), 0)
    with pytest.raises(CapacityError, match="capacity must be at least 1 token, got 0"):
        Session(engines, info(), 1, 0)
    with pytest.raises(CapacityError, match="the model has 96 positions, got a capacity of 97"):
        Session(engines, info(), 1, 97)
    assert Session(engines, info(max_positions=None), 1, 500).capacity == 500


def test_rewinding_too_far() -> None:
    """Both numbers are named."""
    session = Session(fake_hourglass(2, 2), info())
    session.advance(random_ids(1, 5))
    for tokens in (6, -1):
        with pytest.raises(InputError, match=rf"can't rewind {tokens} tokens: the session holds 5"):
            session.rewind(tokens)


def test_state_is_accounted_for() -> None:
    """Reserved bytes per stage, the rows given so far, and an error for rows nobody keeps."""
    session = Session(fake_hourglass(3, 2), info())
    session.advance(random_ids(1, 7))
    assert set(session.state_bytes) == {"1.pre", "k.pre", "deep", "k.post", "1.post"}
    assert session.output_rows("k.post").shape == (9, 1, DIM)
    with pytest.raises(ConfigError, match=r'no rows are kept for stage "1\.post"'):
        session.output_rows("1.post")


def test_an_observer_sees_every_engine_call() -> None:
    """With the stage, the firings and the time."""
    session, seen = Session(fake_hourglass(2, 2), info()), []
    session.observer = lambda spec, firings, elapsed_ns: seen.append((spec.name, firings, elapsed_ns >= 0))
    session.advance(random_ids(1, 3))
    assert seen == [("1.pre", 3, True), ("k.pre", 2, True), ("deep", 1, True), ("k.post", 2, True), ("1.post", 3, True)]


def test_as_a_context_manager() -> None:
    """Buffers go when the block ends."""
    with Session(fake_hourglass(2, 2), info()) as session:
        session.advance(random_ids(1, 3))
    assert session.state_bytes == {}


def test_logits_that_find_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many rows of a large vocabulary; the session is as it was."""
    session, ids = Session(fake_hourglass(2, 2), info()), random_ids(1, 8, 7)
    expected = Session(fake_hourglass(2, 2), info()).advance(ids)
    with monkeypatch.context() as small:
        small.setattr(session.decoder, "_vocab_size", 2**45)
        with pytest.raises(CapacityError, match="the logits of 1 x 5 tokens find no room .*last_only=True"):
            session.advance(ids[:, :5])
    np.testing.assert_array_equal(session.advance(ids), expected)


CLOSED: dict[str, Callable[[Session], object]] = {
    "advance": lambda session: session.advance([[1]]),
    "snapshot": lambda session: session.snapshot(),
    "fork": lambda session: session.fork(),
    "restore": lambda session: session.restore(Session(fake_hourglass(2, 2), info()).snapshot()),
    "output_rows": lambda session: session.output_rows("1.pre"),
    "draws": lambda session: session.draws,
}


@pytest.mark.parametrize("call", CLOSED)
@pytest.mark.parametrize("engines", [host_engines, resident_engines])
def test_a_session_that_is_closed_answers_nothing(engines: Callable[..., Any], call: str) -> None:
    """Its memory may be another's by now; what it has counted is still there."""
    with Session(engines(hourglass(2, 2)), info()) as session:
        session.advance(random_ids(1, 3, 7))
        fires = dict(session.fires)
    with pytest.raises(InputError, match="the session is closed: .* open another"):
        CLOSED[call](session)
    assert session.fires == fires
    with session:
        pass  # closing it again is nothing


@pytest.mark.parametrize("capacity", [2**45, 2**62])
def test_state_that_finds_no_room(capacity: int) -> None:
    """More than the memory there is, and more than an array may hold."""
    with pytest.raises(CapacityError, match=r"the state of 1 sequences of .* tokens finds no room .*; ask for a smaller"):
        Session(fake_hourglass(2, 2), info(max_positions=None), capacity=capacity)


def test_a_call_and_a_copy_that_find_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was asked for and what to do; the session goes on as if nothing had been asked."""
    session, ids = Session(fake_hourglass(2, 2), info()), random_ids(1, 6)
    session.advance(ids[:, :3])

    def no_room(*_: object) -> None:
        raise MemoryError("Unable to allocate 8.00 GiB")

    with monkeypatch.context() as patch:
        patch.setattr(session.decoder, "run", no_room)
        patch.setattr(session.decoder, "read", no_room)
        asked = r"1 x 3 tokens, of which 3 give logits, finds no room \(Unable to allocate 8.00 GiB\); .*last_only=True$"
        with pytest.raises(CapacityError, match=asked):
            session.advance(ids[:, 3:])
        for copy in (session.snapshot, session.fork):
            with pytest.raises(CapacityError, match=r"a copy of 3 tokens' state finds no room \(Unable .*\); let go of"):
                copy()
    expected = Session(fake_hourglass(2, 2), info()).advance(ids)
    np.testing.assert_array_equal(session.advance(ids[:, 3:]), expected[:, 3:])
