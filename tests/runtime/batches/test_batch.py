"""Sequences that join, decode and leave at any step have the logits of sessions of their own."""

from __future__ import annotations

import tracemalloc
from random import Random
from typing import Any

import numpy as np
import pytest
from batches import BatchWalk, wander
from hypothesis import given
from hypothesis import strategies as st
from precisions import PrecisionZoo
from programs import CAPACITY, VOCABULARY, ahead, borrowing, forgetful, host_engines, hourglass, info, paged, top_down
from specimens import ZOO, Zoo

from foveal import CapacityError, ConfigError, EngineMismatchError, InputError, SessionBusyError, load
from foveal.export.building import plan_of
from foveal.runtime.batches import host_batch
from foveal.runtime.batches.batch import Batch
from foveal.runtime.batches.sequence import Sequence as Joined
from foveal.runtime.engines.base import Engine
from foveal.runtime.engines.onnxruntime import OnnxRuntimeEngine
from foveal.runtime.session import Session

programs = st.one_of(
    st.builds(hourglass, st.integers(2, 5), st.integers(2, 5)),
    st.builds(top_down, st.integers(2, 8)),
    st.builds(ahead, st.integers(2, 4), st.integers(2, 4)),
    st.builds(forgetful, st.integers(2, 4), st.integers(2, 4), st.integers(1, 2)),
    st.builds(borrowing, st.integers(2, 4)),
    st.builds(paged, st.integers(2, 4), st.just(8)),
).map(host_engines)


@given(programs, st.sampled_from(["staggered", "aligned"]), st.integers(1, 6), st.booleans(), st.randoms())
def test_any_interleaving_gives_the_logits_of_sessions(
    engines: list[Engine], policy: Any, slots: int, is_patient: bool, choose: Random
) -> None:
    """Joins, leaves, pauses, rewinds, forks, moves through a session, steps of a part, prompts in chunks."""
    batch = Batch(engines, info(), slots, policy=policy, prefill_seconds=float(is_patient))
    walk = BatchWalk(batch, lambda: Session(engines, info()), 1e-5)
    wander(walk, choose, 30, CAPACITY, VOCABULARY)


@given(programs, st.integers(2, 6), st.randoms())
def test_over_firing_is_harmless(engines: list[Engine], slots: int, choose: Random) -> None:
    """Every stage fires for every slot in every step, where it may; the logits are the same."""

    def all_of_them(fires: Any, passable: Any) -> list[tuple[int, int]]:
        everywhere = fires | passable
        return [(slot, slot + 1) for slot in np.flatnonzero(everywhere)] if not everywhere.all() else [(0, len(fires))]

    batch = Batch(engines, info(), slots)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(host_batch, "ranges_of", all_of_them)
        wander(BatchWalk(batch, lambda: Session(engines, info()), 1e-5), choose, 30, CAPACITY, VOCABULARY)


@pytest.mark.parametrize("how", ["fork", "restore"])
def test_what_was_copied_into_a_slot_is_not_run_along_from_where_the_slot_was_before(how: str, engines: list[Engine]) -> None:
    """But from its own next firing on: below it, rows are read."""
    batch = Batch(engines, info(), 3, policy="aligned")
    first, gone, last = batch.join([1] * 20), batch.join([2]), batch.join([3] * 20)
    until_ready(batch, first, gone, last)
    saved = batch.snapshot(first)
    batch.leave(gone)
    copied = batch.fork(first) if how == "fork" else batch.restore(saved)
    assert (first.slot, copied.slot, last.slot) == (0, 1, 2)
    batch.step({first: 4, last: 4})
    assert engines[0].fired[-3:] == [20, 20, 20]  # type: ignore[attr-defined]


@pytest.fixture
def engines() -> list[Engine]:
    """Three scales: 1, 2 and 4."""
    return host_engines(hourglass(2, 2))


def until_ready(batch: Batch, *sequences: Joined) -> None:
    """Steps without tokens until all of them take one."""
    for _ in range(200):
        if all(sequence.state == "ready" for sequence in sequences):
            return
        batch.step()
    raise AssertionError("they are not ready after 200 steps")


def until_all_decode(batch: Batch, *sequences: Joined) -> None:
    """Steps in which each that is ready takes a token at once, as it should to stay in its phase."""
    given: dict[Joined, int] = {}
    for _ in range(200):
        given = dict.fromkeys(batch.step(given), 7)
        if len(given) == len(sequences):
            return
    raise AssertionError("they do not decode after 200 steps")


def test_the_slots_of_a_full_batch_fire_in_turn(engines: list[Engine]) -> None:
    """Staggered, every step costs the same: as many slots for each stage. Aligned, all fire in every fourth."""
    fired: dict[str, list[list[int]]] = {}
    for policy in ("staggered", "aligned"):
        batch = Batch(engines, info(), 8, policy=policy)  # type: ignore[arg-type]
        sequences = [batch.join([1] * length) for length in (3, 9, 4, 1, 6, 2, 2, 5)]
        until_all_decode(batch, *sequences)
        for _ in range(8):
            before = batch.fires
            batch.step(dict.fromkeys(sequences, 7))
            fired.setdefault(policy, []).append([count - before[name] for name, count in batch.fires.items()])
    assert fired["staggered"] == [[8, 4, 2, 4, 8]] * 8
    assert sorted(fired["aligned"]) == [[8, 0, 0, 0, 8]] * 4 + [[8, 8, 0, 8, 8]] * 2 + [[8, 8, 8, 8, 8]] * 2


def test_what_fires_is_one_run_of_slots(engines: list[Engine]) -> None:
    """So that a stage is called once in a step, however many sequences it fires for."""
    batch = Batch(engines, info(), 8)
    sequences = [batch.join([1, 2, 3]) for _ in range(8)]
    until_all_decode(batch, *sequences)
    calls: list[tuple[str, int]] = []
    batch.observer = lambda spec, slots, _ns: calls.append((spec.name, slots))
    batch.step(dict.fromkeys(sequences, 7))
    assert calls == [("1.pre", 8), ("k.pre", 4), ("deep", 2), ("k.post", 4), ("1.post", 8)]


def test_a_prompt_is_appended_between_steps(engines: list[Engine]) -> None:
    """A part in each, so that those that decode go on; without any, all of it at once."""
    batch = Batch(engines, info(), 3, prefill_seconds=0)
    first = batch.join([1, 2, 3])
    until_ready(batch, first)
    second = batch.join([5] * 60)
    positions = []
    while second.state != "ready":
        batch.step({first: 4})
        positions.append(second.position)
    assert positions[:3] == [1, 2, 3]
    assert first.position > 20


class TestJoining:
    """Slots are taken, freed and waited for."""

    def test_a_full_batch_refuses_or_queues(self, engines: list[Engine]) -> None:
        """As asked."""
        batch = Batch(engines, info(), 2)
        first, _second = batch.join([1]), batch.join([2])
        with pytest.raises(CapacityError, match=r"all 2 slots are taken.*queue=True"):
            batch.join([3])
        third, fourth = batch.join([3], queue=True), batch.join([4], queue=True)
        assert (third.state, third.position) == ("queued", 0)
        with pytest.raises(InputError, match="waits for a slot"):
            batch.snapshot(third)
        batch.leave(first)
        until_ready(batch, third)
        assert fourth.state == "queued"
        batch.leave(third)
        with pytest.raises(CapacityError, match="all 2 slots are taken"):
            batch.join([5])  # the slot that is free is the fourth's
        assert fourth.state == "prefilling"
        batch.leave(fourth)
        assert len(batch.sequences) == 1

    def test_leaving_while_the_prompt_is_appended_frees_the_slot(self, engines: list[Engine]) -> None:
        """And nothing of it is left to who comes next."""
        batch = Batch(engines, info(), 2, prefill_seconds=0)
        other = batch.join([1])
        until_ready(batch, other)
        cancelled = batch.join([9] * 90)
        batch.step({other: 1})
        assert (cancelled.state, batch.free_slots) == ("prefilling", 0)
        batch.leave(cancelled)
        assert batch.free_slots == 1
        joined = batch.join([3, 4])
        until_ready(batch, joined)
        expected = Session(engines, info()).advance([[3, 4]], last_only=True)[0, 0]
        np.testing.assert_allclose(joined.logits, expected, atol=1e-5)

    def test_a_thousand_joins_and_leaves_take_no_more_memory(self, engines: list[Engine]) -> None:
        """Than the first hundred."""
        batch = Batch(engines, info(), 4)

        def come_and_go(times: int) -> None:
            for number in range(times):
                if not batch.free_slots:
                    batch.leave(batch.sequences[number % 4])
                batch.join([number % VOCABULARY] * (1 + number % 7))
                batch.step({one: 1 for one in batch.sequences if one.state == "ready"})
                for engine in engines:
                    engine.fired.clear()  # type: ignore[attr-defined]

        come_and_go(100)
        tracemalloc.start()
        come_and_go(100)
        before = tracemalloc.get_traced_memory()[0]
        come_and_go(900)
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        assert grown < 50_000


class TestBadInput:
    """Each has its own message, and the other sequences go on."""

    def test_tokens(self, engines: list[Engine]) -> None:
        """For sequences that take none, or that are none of the vocabulary's."""
        batch = Batch(engines, info(), 4, capacity=8, prefill_seconds=0)
        one, paused, gone = (batch.join([1, 2]) for _ in range(3))
        until_ready(batch, one, paused, gone)
        batch.pause(paused)
        batch.leave(gone)
        prefilling = batch.join([5])
        foreign = Batch(engines, info(), 1).join([1])
        for wrong, words in (
            ({paused: 1}, "was paused; resume it"),
            ({gone: 1}, "has left the batch; join again"),
            ({prefilling: 1}, "its prompt is still being appended"),
            ({foreign: 1}, "is of another batch"),
            ({one: 41}, "id 41 is outside the vocabulary"),
            ({one: -1}, "id -1 is outside"),
            ({one: 1.5}, "a token must be an integer, got 1.5"),
            ({"one": 1}, "expected a sequence that join gave, got str"),
            ([1], "step takes the next id by sequence"),
        ):
            with pytest.raises(InputError, match=words):
                batch.step({one: 3, **wrong} if isinstance(wrong, dict) and one not in wrong else wrong)  # type: ignore[dict-item,arg-type]
        assert one.position == 2
        while one.position < 8:
            batch.step({one: 3})
        with pytest.raises(CapacityError, match="is full: it holds 8 tokens"):
            batch.step({one: 3})
        expected = Session(engines, info()).advance([[1, 2] + [3] * 6], last_only=True)[0, 0]
        np.testing.assert_allclose(one.logits, expected, atol=1e-5)

    def test_prompts(self, engines: list[Engine]) -> None:
        """Empty, too long, or no ids."""
        batch = Batch(engines, info(), 2, capacity=8)
        for prompt, kind, words in (
            ([], InputError, "the prompt is empty"),
            ([1] * 9, CapacityError, "the prompt has 9 tokens, a sequence of this batch room for 8 of 8"),
            ([99], InputError, "hold 99, which is outside the vocabulary"),
            ([[1, 2]], InputError, "expected one sequence"),
            ("text", InputError, "expected"),
        ):
            with pytest.raises(kind, match=words):
                batch.join(prompt)
        assert batch.free_slots == 2

    def test_settings(self, engines: list[Engine]) -> None:
        """Slots, capacity, policy and time that there can't be."""
        for changes, kind, words in (
            ({"slots": 0}, ConfigError, "slots must be at least 1, got 0"),
            ({"slots": 1.5}, ConfigError, "slots must be an integer"),
            ({"capacity": 97}, CapacityError, "the model has 96 positions, got a capacity of 97"),
            ({"capacity": 0}, CapacityError, "capacity must be at least 1"),
            ({"policy": "random"}, ConfigError, 'got policy "random", expected one of: staggered, aligned'),
            ({"policy": np.array(["aligned", "staggered"])}, ConfigError, "expected one of: staggered, aligned"),
            ({"prefill_seconds": -1}, ConfigError, "prefill_seconds must be a number of seconds"),
            ({"prefill_seconds": float("nan")}, ConfigError, "prefill_seconds must be"),
            ({"slots": 10**12}, CapacityError, "finds no room"),
        ):
            with pytest.raises(kind, match=words):
                Batch(engines, info(), **{"slots": 2, **changes})  # type: ignore[arg-type]

    def test_caches_that_find_no_room(self, engines: list[Engine], monkeypatch: pytest.MonkeyPatch) -> None:
        """Of all slots together."""
        monkeypatch.setattr(engines[0], "new_caches", fails)
        with pytest.raises(CapacityError, match="the state of 64 sequences"):
            Batch(engines, info(), 64)

    def test_numbers_of_numpy_and_beyond_all_bounds_are_numbers(self, engines: list[Engine]) -> None:
        """An array of none, a float32, a time of forever."""
        for seconds in (np.float32(0.5), np.int64(1), 10**400, float("inf")):
            batch = Batch(engines, info(), np.array(2), prefill_seconds=seconds)  # type: ignore[arg-type]
            assert type(batch.slots) is int
            until_ready(batch, batch.join([1, 2, 3]))

    def test_rewinds_forks_and_resumes(self, engines: list[Engine]) -> None:
        """Of what is not there yet, or not there any more."""
        batch = Batch(engines, info(), 2, prefill_seconds=0)
        one = batch.join([1, 2])
        with pytest.raises(InputError, match="still being appended"):
            batch.rewind(one, 1)
        with pytest.raises(InputError, match="still being appended"):
            batch.fork(one)
        until_ready(batch, one)
        with pytest.raises(InputError, match="can't rewind 3 tokens: the sequence holds 2"):
            batch.rewind(one, 3)
        with pytest.raises(InputError, match="was not paused"):
            batch.resume(one)
        batch.fork(one)
        with pytest.raises(CapacityError, match="all 2 slots are taken"):
            batch.fork(one)
        with pytest.raises(CapacityError, match="all 2 slots are taken"):
            batch.restore(batch.snapshot(one))

    def test_snapshots(self, engines: list[Engine]) -> None:
        """Of another bundle, of several sequences, of other stages, too long, or none at all."""
        batch = Batch(engines, info(), 2, capacity=8, bundle="a")
        other = Session(engines, info(), bundle="b")
        other.advance([[1, 2]])
        pair, long = Session(engines, info(), 2, bundle="a"), Session(engines, info(), bundle="a")
        pair.advance([[1], [2]])
        long.advance([[1] * 9])
        alien = Session(host_engines(top_down(4)), info())
        for snapshot, kind, words in (
            (other.snapshot(), InputError, "of another bundle or target"),
            (pair.snapshot(), InputError, "has batch 2, this batch 1"),
            (long.snapshot(), CapacityError, "holds 9 tokens, this batch at most 8"),
            (alien.snapshot(), InputError, "keep their rows and caches otherwise"),
            (b"bytes", InputError, "got bytes"),
        ):
            with pytest.raises(kind, match=words):
                batch.restore(snapshot)  # type: ignore[arg-type]
            assert batch.free_slots == 2

    def test_memory_that_does_not_suffice_for_a_prompt(self, engines: list[Engine], monkeypatch: pytest.MonkeyPatch) -> None:
        """Its sequence is paused; the others have their logits and go on."""
        batch = Batch(engines, info(), 2)
        one = batch.join([1, 2])
        until_ready(batch, one)
        other = batch.join([3])
        prefill = batch.decoder.prefill
        with monkeypatch.context() as patch:
            patch.setattr(
                batch.decoder, "prefill", lambda slot, *given: (fails if slot == other.slot else prefill)(slot, *given)
            )
            with pytest.raises(CapacityError, match=r"1 tokens of the prompt of <Sequence 1.*it was paused"):
                batch.step({one: 3})
        assert (one.position, other.state) == (3, "paused")
        expected = Session(engines, info()).advance([[1, 2, 3]], last_only=True)[0, 0]
        np.testing.assert_allclose(one.logits, expected, atol=1e-5)
        batch.resume(other)
        until_ready(batch, other)

    def test_memory_that_does_not_suffice_for_a_step(self, engines: list[Engine], monkeypatch: pytest.MonkeyPatch) -> None:
        """No token was appended: the same step can be made again."""
        batch = Batch(engines, info(), 2)
        sequences = [batch.join([1]), batch.join([2])]
        until_ready(batch, *sequences)
        with monkeypatch.context() as patch:
            patch.setattr(batch.decoder, "step", fails)
            with pytest.raises(CapacityError, match="a step of 2 sequences finds no room"):
                batch.step(dict.fromkeys(sequences, 3))
        assert [one.position for one in sequences] == [1, 1]
        batch.step(dict.fromkeys(sequences, 3))

    def test_memory_that_does_not_suffice_before_the_first_token(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of stages that fire ahead of it: as for the prompt, and as for the step, behind it."""
        engines = host_engines(ahead(2, 2))
        batch = Batch(engines, info(), 1)
        one = batch.join([1, 2])
        with monkeypatch.context() as patch:
            patch.setattr(batch.decoder, "prefill", fails)
            with pytest.raises(CapacityError, match="it was paused"):
                batch.step()
            batch.resume(one)
        until_ready(batch, one)
        batch.rewind(one, 2)
        with monkeypatch.context() as patch:
            patch.setattr(batch.decoder, "prefill", fails)
            with pytest.raises(CapacityError, match="a step of 1 sequences finds no room"):
                batch.step({one: 3})
        expected = Session(engines, info()).advance([[3]], last_only=True)[0, 0]
        np.testing.assert_allclose(batch.step({one: 3})[one], expected, atol=1e-5)

    @pytest.mark.parametrize("copying", ["fork", "write"])
    def test_memory_that_does_not_suffice_for_a_copy(
        self, engines: list[Engine], monkeypatch: pytest.MonkeyPatch, copying: str
    ) -> None:
        """Of a fork, or of a snapshot that is restored: its slot is free again, and no sequence stays in it."""
        batch = Batch(engines, info(), 2)
        one = batch.join([1, 2])
        until_ready(batch, one)
        saved = batch.snapshot(one)
        monkeypatch.setattr(batch.decoder, copying, fails)
        with pytest.raises(CapacityError, match="a copy of 2 tokens' state finds no room"):
            _ = batch.fork(one) if copying == "fork" else batch.restore(saved)
        assert batch.sequences == [one]
        assert batch.step({one: 3}).keys() == {one}

    def test_a_closed_batch(self, engines: list[Engine]) -> None:
        """Says so, and its sequences have left."""
        with Batch(engines, info(), 2) as batch:
            one = batch.join([1])
            until_ready(batch, one)
        with pytest.raises(InputError, match="has left the batch"):
            batch.step({one: 1})
        for call in (lambda: batch.join([1]), lambda: batch.join([1], queue=True), batch.step):
            with pytest.raises(InputError, match="the batch is closed"):
                call()
        assert batch.sequences == []

    def test_two_threads(self, engines: list[Engine]) -> None:
        """A second call while one is in progress is refused, as in a session."""
        batch = Batch(engines, info(), 2)
        with batch.turn, pytest.raises(SessionBusyError):
            batch.step()


def fails(*_given: object) -> np.ndarray:
    raise MemoryError("no more")


def test_engines_that_were_built_before_take_one_slot(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have one position for all sequences; two would be given wrong numbers."""
    model = load(zoo["nested"].bundle, threads=1, native=False)
    monkeypatch.setattr(OnnxRuntimeEngine, "takes_each", False)
    with pytest.raises(EngineMismatchError, match="foveal build BUNDLE --target cpu"):
        model.batch(2)
    model.batch(1)


def test_extending_a_sequence_is_appending_a_prompt(engines: list[Engine]) -> None:
    """In chunks between steps; the logits come when all of it is there."""
    batch = Batch(engines, info(), 2)
    one = batch.join([1, 2])
    until_ready(batch, one)
    batch.step({one: 3})
    batch.extend(one, [4, 5, 6])
    assert (one.state, one.logits) == ("prefilling", None)
    until_ready(batch, one)
    expected = Session(engines, info()).advance([[1, 2, 3, 4, 5, 6]], last_only=True)[0, 0]
    np.testing.assert_allclose(one.logits, expected, atol=1e-5)
    for ids, kind, words in (([], InputError, "is empty"), ([1] * 95, CapacityError, "room for 90 of 96")):
        with pytest.raises(kind, match=words):
            batch.extend(one, ids)
    assert one.state == "ready"


@pytest.mark.parametrize("policy", ["staggered", "aligned"])
@pytest.mark.parametrize("name", ZOO)
def test_engines_of_every_kind_of_hourglass_give_the_logits_of_sessions(zoo: Zoo, name: str, policy: Any) -> None:
    """On ONNX Runtime; of other families in `family_engines.py`, with int8."""
    model = load(zoo[name].bundle, threads=1)
    batch = model.batch(5, 60, policy, prefill_seconds=0)
    wander(BatchWalk(batch, lambda: model.session(capacity=60), 1e-4), Random(name), 40, 60, VOCABULARY)


@pytest.mark.parametrize("precision", ["int8", "w8", "w4"])
def test_integer_engines_give_the_logits_of_sessions(precise: PrecisionZoo, precision: str) -> None:
    """But for a rounding step of an activation, where the last bit of a sum decides."""
    model = load(precise["nested"].build(plan_of(precision)), threads=1)
    batch = model.batch(5, 60, prefill_seconds=0)
    wander(BatchWalk(batch, lambda: model.session(capacity=60), 0.05), Random(precision), 40, 60, 128)
