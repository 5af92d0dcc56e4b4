"""A store of sessions: what was put comes back as it was, within budgets; what goes wrong is said and costs nothing else."""

from __future__ import annotations

import errno
import itertools
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kills import run_and_kill
from programs import Program, host_engines, hourglass, info, meaning, paged, programs, resident_engines
from specimens import Zoo, random_ids, random_model
from torch_sessions import logits_of, torch_session

from foveal import CapacityError, ConfigError, InputError, Session, SessionStore, Snapshot, StorageError, load
from foveal.contract import rewinds_of
from foveal.models.retina.compaction import Compaction
from foveal.runtime.batches.batch import Batch
from foveal.runtime.rows import Array
from foveal.runtime.store import blocks, session_store, store_folder
from foveal.runtime.store.cuts import part

PROGRAM = hourglass(2, 3)
BLOCK = 4
_RETINA = random_model("1@1", architecture="retina", compaction=Compaction(page=8, poolings=(2, 4, 8), spans=(8, 16)))
"""Whose caches are written over within a few tokens."""


@pytest.fixture(autouse=True, scope="module")
def _short_blocks() -> Iterator[None]:
    """So that sequences of a few tokens have several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK_TOKENS", BLOCK)
        patch.setattr(store_folder, "BLOCK_TOKENS", BLOCK)
        yield


class Stages(NamedTuple):
    """Of a model."""

    specs: Program = PROGRAM
    identity: str = "a bundle"


def session_of(program: Program = PROGRAM, ids: Array | None = None, on_device: bool = False) -> Session:
    """One of fakes, that has read some ids `[T]`."""
    session = Session(resident_engines(program) if on_device else host_engines(program), info(), bundle="a bundle")
    if ids is not None and len(ids):
        session.advance(ids[None])
    return session


def moment(ids: Array, program: Program = PROGRAM) -> Snapshot:
    """A copy of it."""
    return session_of(program, ids).snapshot()


def ids_of(seed: int, tokens: int = 12) -> Array:
    """A sequence of its own."""
    return random_ids(1, tokens, seed=seed)[0]


def check_goes_on(snapshot: Snapshot | None, ids: Array, program: Program = PROGRAM, on_device: bool = False) -> None:
    """As if the ids had been read by a session that was never stored."""
    assert snapshot is not None
    session, more = session_of(program, on_device=on_device), ids_of(99, 7)
    session.restore(snapshot)
    assert session.tokens[0].tolist() == ids.tolist()
    expected = meaning(program, np.concatenate([ids, more])[None])[:, len(ids) :]
    np.testing.assert_allclose(session.advance(more[None]), expected, atol=2e-5)


def size_of(tokens: int) -> int:
    """Bytes of a sequence of so many tokens."""
    return moment(ids_of(0, tokens)).written.nbytes


def files(directory: Path) -> dict[Path, int]:
    """And their sizes, without the lock."""
    return {path: path.stat().st_size for path in directory.rglob("*") if path.is_file() and path.name != "lock"}


class TestKeeps:
    """Under a key."""

    @given(program=programs, tokens=st.integers(0, 30), on_device=st.booleans(), on_disk=st.booleans())
    def test_any_state(self, program: Program, tokens: int, on_device: bool, on_disk: bool) -> None:
        """Of any kind of stages, at any phase, in memory or in files."""
        ids = ids_of(1, tokens)
        with tempfile.TemporaryDirectory() as directory:
            with SessionStore(Stages(program), 0 if on_disk else 1 << 20, directory) as store:
                store.put("a", session_of(program, ids, on_device))
                assert not on_disk or store.statistics.memory_bytes == 0
                check_goes_on(store.get("a"), ids, program, on_device)
            with SessionStore(Stages(program), 1 << 20, directory) as store:
                check_goes_on(store.get("a"), ids, program, on_device)

    def test_exactly_what_was_put(self) -> None:
        """Also of a session that was rewound."""
        session = session_of(ids=ids_of(1, 21))
        session.rewind(4)
        saved, store = session.snapshot(), SessionStore(Stages(), 1 << 20)
        store.put("a", saved)
        got = store.get("a")
        assert got is not None
        assert got.to_bytes() == saved.to_bytes()

    def test_batches(self, tmp_path: Path) -> None:
        """Whole, and not to be found by a prompt."""
        session = Session(host_engines(PROGRAM), info(), 2, bundle="a bundle")
        session.advance(random_ids(2, 9))
        for memory in (0, 1 << 20):
            with SessionStore(Stages(), memory, tmp_path) as store:
                store.put("a", session)
                store.put("b", moment(ids_of(1)))
                got = store.get("a")
                assert got is not None
                assert got.to_bytes() == session.snapshot().to_bytes()
                assert store.longest_prefix(random_ids(2, 9)[0]) is None
                store.clear()

    def test_one_sequence_under_a_key(self) -> None:
        """The last one put."""
        store = SessionStore(Stages(), 1 << 20)
        store.put("a", moment(ids_of(1)))
        store.put("a", moment(ids_of(2, 5)))
        check_goes_on(store.get("a"), ids_of(2, 5))
        assert (len(store), store.position("a")) == (1, 5)
        assert store.statistics.memory_bytes == size_of(5)

    def test_what_is_not_there(self) -> None:
        """Is None, False, and counted; sessions are unchanged."""
        store, session = SessionStore(Stages(), 1 << 20), session_of(ids=ids_of(1, 3))
        assert (store.get("a"), store.pop("a"), store.position("a"), store.discard("a")) == (None, None, None, False)
        assert not store.restore("a", session)
        assert session.position == 3
        assert store.statistics.misses == 3

    def test_restore_pop_and_discard(self) -> None:
        """A session goes on; what is taken out is there no more, and its room is free."""
        store, session = SessionStore(Stages(), 1 << 20), session_of()
        for key in "abc":
            store.put(key, moment(ids_of(ord(key))))
        assert store.restore("a", session)
        assert session.tokens[0].tolist() == ids_of(ord("a")).tolist()
        check_goes_on(store.pop("b"), ids_of(ord("b")))
        assert store.discard("c")
        assert (store.keys(), "a" in store, "b" in store) == (["a"], True, False)
        assert store.statistics.memory_bytes == size_of(12)
        store.clear()
        assert (len(store), store.statistics.memory_bytes) == (0, 0)

    @pytest.mark.parametrize("name", ["nested", "top-down"])
    def test_a_real_model(self, name: str, zoo: Zoo, tmp_path: Path) -> None:
        """Exactly: the same logits as of the session that was never stored."""
        model, ids = load(zoo[name].bundle, threads=1), random_ids(1, 60)
        session = model.session()
        session.advance(ids[:, :41])
        with SessionStore(model, 0, tmp_path) as store:
            store.put("a", session)
            later = model.session()
            assert store.restore("a", later)
            np.testing.assert_array_equal(later.advance(ids[:, 41:]), session.advance(ids[:, 41:]))
            found = store.longest_prefix(ids[0, :30])
            assert found is not None
            later.restore(found.snapshot)
            session.rewind(30)
            np.testing.assert_array_equal(later.advance(ids[:, 30:]), session.advance(ids[:, 30:]))


class TestPrefixes:
    """Of prompts, that were read before."""

    def test_the_longest_is_found(self) -> None:
        """To the token, wherever blocks end; the key says whose it is."""
        store, ids = SessionStore(Stages(), 1 << 20), ids_of(1, 30)
        store.put("short", moment(ids[:6]))
        store.put("long", moment(np.concatenate([ids[:17], ids_of(2)])))
        for tokens, key in ((3, None), (17, "long"), (30, "long")):
            found = store.longest_prefix(ids[:tokens])
            assert found is not None
            assert found.key == key or key is None
            check_goes_on(found.snapshot, ids[: min(tokens, 17)])

    def test_none(self) -> None:
        """Where the first token is another already, and of no tokens."""
        store = SessionStore(Stages(), 1 << 20)
        store.put("a", moment(np.zeros(9, np.int64)))
        store.put("nothing", moment(np.zeros(0, np.int64)))
        assert store.longest_prefix(np.ones(4, np.int64)) is None
        assert store.longest_prefix([]) is None
        assert (store.statistics.prefix_hits, store.statistics.prefix_misses) == (0, 2)

    def test_what_is_shared_is_there_once(self, tmp_path: Path) -> None:
        """In memory and in files; and goes with the last that needs it."""
        store, ids = SessionStore(Stages(), 1 << 20, tmp_path), ids_of(1, 32)
        for key in range(5):
            store.put(str(key), moment(np.concatenate([ids, ids_of(key + 2, 4)])))
        own = size_of(36) - size_of(32)
        assert store.statistics.memory_bytes == size_of(32) + 5 * own
        store.flush()
        assert len(files(tmp_path)) == 5 + 32 // BLOCK + 5
        for key in range(4):
            store.discard(str(key))
        assert store.statistics.memory_bytes == size_of(36)
        assert len(files(tmp_path)) == 1 + 36 // BLOCK
        store.close()

    def test_a_sequence_that_goes_on_costs_its_new_tokens(self) -> None:
        """Even with no room for two of them."""
        session, store = session_of(ids=ids_of(1, 20)), SessionStore(Stages(), size_of(24))
        store.put("a", session)
        session.advance(ids_of(2, 4)[None])
        store.put("a", session)
        assert (store.position("a"), store.statistics.evictions) == (24, 0)

    @given(tokens=st.integers(1, 90), fewer=st.integers(1, 90), back=st.integers(0, 9))
    def test_of_a_model_that_compacts_its_past(self, tokens: int, fewer: int, back: int) -> None:
        """As far back as it could have been rewound; the caches that it writes over come back whole."""
        session, ids = torch_session(_RETINA, 1), random_ids(1, 96)
        rewinds = rewinds_of(session.specs)
        session.advance(ids[:, :tokens])
        session.rewind(min(back, tokens - 1))
        store, kept = SessionStore(Stages(session.specs, ""), 1 << 30), session.position
        store.put("a", session)
        common = min(fewer, kept)
        found = store.longest_prefix(np.concatenate([ids[0, :common], (ids[0, common:] + 1) % 41]))
        assert rewinds is not None
        assert (found is not None) == (common >= min(kept, tokens - rewinds))
        if found is not None:
            session.reset()
            session.restore(found.snapshot)
            expected = logits_of(_RETINA, ids)[:, common:]
            np.testing.assert_allclose(session.advance(ids[:, common:]), expected, atol=2e-5)

    def test_of_models_that_can_take_little_back(self) -> None:
        """No further than that."""
        program, ids = paged(2, 4, rewinds=5), ids_of(1, 20)
        store = SessionStore(Stages(program), 1 << 20)
        store.put("a", moment(ids, program))
        found = store.longest_prefix(np.concatenate([ids[:15], [40, 40]]))
        assert found is not None
        check_goes_on(found.snapshot, ids[:15], program)
        assert store.longest_prefix(ids[:14]) is None
        store.clear()
        session = Session(host_engines(program), info(), 2, bundle="a bundle")
        session.advance(np.stack([ids, ids]))
        store.put("pair", session)
        assert store.longest_prefix(ids) is None


class TestBudgets:
    """Are kept, by what was used least recently."""

    def test_memory_goes_to_files_and_comes_back(self, tmp_path: Path) -> None:
        """Oldest first; what was asked for is young."""
        with SessionStore(Stages(), 2 * size_of(12), tmp_path) as store:
            for key in "abc":
                store.put(key, moment(ids_of(ord(key))))
                store.get("a")
            assert (store.keys(), store.statistics.spills) == (["b", "c", "a"], 1)
            assert (store.statistics.in_memory, store.statistics.on_disk) == (2, 1)
            check_goes_on(store.get("b"), ids_of(ord("b")))
            assert (store.statistics.in_memory, store.statistics.on_disk, store.statistics.spills) == (2, 2, 2)
            for key in "abc":
                check_goes_on(store.get(key), ids_of(ord(key)))
            assert store.statistics.spills == 3
            assert store.statistics.evictions == 0

    def test_without_a_directory_it_is_dropped(self) -> None:
        """And counted."""
        store = SessionStore(Stages(), 2 * size_of(12))
        for key in "abc":
            store.put(key, moment(ids_of(ord(key))))
        assert (store.keys(), store.statistics.evictions) == (["b", "c"], 1)

    def test_files_have_a_budget_too(self, tmp_path: Path) -> None:
        """What exceeds it is dropped, unless it is in memory."""
        with SessionStore(Stages(), size_of(12), tmp_path, disk_bytes=12_000) as store:
            for key in "abcdefgh":
                store.put(key, moment(ids_of(ord(key))))
                assert store.statistics.disk_bytes == sum(files(tmp_path).values()) <= 12_000
            assert store.statistics.evictions > 0
            assert store.keys()[-1] == "h"
            there = store.keys()
            for key in there:
                if (got := store.get(key)) is not None:  # what comes back may push another out
                    check_goes_on(got, ids_of(ord(key)))

    def test_files_of_what_is_in_memory_go_first(self, tmp_path: Path) -> None:
        """Nothing is lost with them, however young they are."""
        with SessionStore(Stages(), 3 * size_of(12), tmp_path, disk_bytes=8_000) as store:
            for key in "abc":
                store.put(key, moment(ids_of(ord(key))))
            store.flush()
            for key in "de":
                store.put(key, moment(ids_of(ord(key))))
            assert (store.keys(), store.statistics.evictions) == (["a", "b", "c", "d", "e"], 0)
            assert store.statistics.disk_bytes == sum(files(tmp_path).values()) <= 8_000

    def test_what_is_asked_for_goes_first(self, tmp_path: Path) -> None:
        """Where there is room for one on each level, the one that comes back pushes out the other, and not itself."""
        with SessionStore(Stages(), size_of(12), tmp_path, disk_bytes=6_700) as store:
            store.put("a", moment(ids_of(1)))
            store.put("b", moment(ids_of(2)))
            check_goes_on(store.get("a"), ids_of(1))
            assert (store.keys(), store.statistics.evictions) == (["a"], 1)

    def test_larger_than_memory(self, tmp_path: Path) -> None:
        """Straight to files, and no other makes room for it."""
        with SessionStore(Stages(), size_of(12), tmp_path) as store:
            store.put("a", moment(ids_of(1)))
            store.put("b", moment(ids_of(2, 40)))
            assert (store.statistics.in_memory, store.statistics.on_disk) == (1, 1)
            check_goes_on(store.get("b"), ids_of(2, 40))
            assert (store.statistics.in_memory, store.statistics.spills) == (1, 0)

    @pytest.mark.parametrize(("disk", "said"), [(None, "0, as there is no directory"), (30_000, "30,000")])
    def test_larger_than_all(self, disk: int | None, said: str, tmp_path: Path) -> None:
        """Refused; what is there stays, also under that key."""
        directory = None if disk is None else tmp_path
        with SessionStore(Stages(), size_of(12), directory, disk) as store:
            store.put("a", moment(ids_of(1)))
            with pytest.raises(CapacityError, match=f'"a" takes .* bytes, more than the store may hold: .* disk_bytes {said}'):
                store.put("a", moment(ids_of(2, 90)))
            check_goes_on(store.get("a"), ids_of(1))
            assert len(files(tmp_path)) == 0


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "put", "get", "prefix", "discard", "flush", "reopen"]),
        st.sampled_from("abcdef"),
        st.lists(st.integers(0, 1), max_size=20),
    ),
    max_size=20,
)


class Model:
    """A dict of ids beside a store: what is in the store is there, and right."""

    def __init__(self, open_store: Callable[[], SessionStore], may_drop: bool) -> None:
        self.open, self.store, self.kept, self.may_drop = open_store, open_store(), {}, may_drop  # type: Any, Any, dict[str, Array], bool

    def take(self, action: str, key: str, ids: Array) -> None:
        """Do one thing with both."""
        if action == "put":
            try:
                self.store.put(key, moment(ids))
                self.kept[key] = ids
            except CapacityError:
                assert self.may_drop
        elif action == "get":
            got = self.store.get(key)
            assert (got is None) == (key not in self.kept)
            if got is not None:
                check_goes_on(got, self.kept[key])
        elif action == "prefix":
            self.find(ids)
        elif action == "discard":
            assert self.store.discard(key) == (self.kept.pop(key, None) is not None)
        elif action == "flush":
            self.store.flush()
        else:
            self.store.close()
            self.store = self.open()

    def find(self, ids: Array) -> None:
        """The longest of all prefixes."""

        def common(other: Array) -> int:
            pairs = zip(ids.tolist(), other.tolist(), strict=False)
            return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))

        longest, found = max(map(common, self.kept.values()), default=0), self.store.longest_prefix(ids)
        assert (found is None) == (longest == 0)
        if found is not None:
            assert common(self.kept[found.key]) == longest
            check_goes_on(found.snapshot, ids[:longest])

    def check(self, memory: int, disk: int | None, directory: Path) -> None:
        """What it says it takes is what it takes, and no more than it may."""
        there = set(self.store.keys())
        assert there == set(self.kept) or (self.may_drop and there <= set(self.kept))
        self.kept = {key: self.kept[key] for key in there}
        said = self.store.statistics
        assert said.memory_bytes <= memory
        assert disk is None or said.disk_bytes <= disk
        assert said.disk_bytes == sum(files(directory).values())
        held = {block for sequence in self.store._sequences.by_key.values() for block in sequence.path}
        assert said.memory_bytes == sum(block.written.nbytes for block in held if block.written is not None)
        assert said.damaged == 0


@given(
    actions=ACTIONS,
    memory=st.sampled_from([0, 3_000, 8_000, 1 << 20]),
    disk=st.sampled_from([0, 20_000, 60_000, None]),
    has_directory=st.booleans(),
)
def test_whatever_is_done(
    actions: list[tuple[str, str, list[int]]], memory: int, disk: int | None, has_directory: bool
) -> None:
    """A store is a dict with budgets."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)

        def open_store() -> SessionStore:
            return SessionStore(Stages(), memory, directory, disk) if has_directory else SessionStore(Stages(), memory)

        model = Model(open_store, may_drop=not has_directory or disk is not None)
        for action, key, ids in actions:
            model.take(action, key, np.array(ids, np.int64))
            model.check(memory, disk, directory)
        model.store.close()


class TestDirectories:
    """Are found again, whole or not."""

    def test_in_the_order_of_use(self, tmp_path: Path) -> None:
        """What is in memory is written when the store is closed."""
        with SessionStore(Stages(), 1 << 20, tmp_path) as store:
            for key in "abc":
                store.put(key, moment(ids_of(ord(key))))
            store.get("a")
        with SessionStore(Stages(), 1 << 20, tmp_path) as store:
            assert store.keys() == ["b", "c", "a"]
            check_goes_on(store.get("c"), ids_of(ord("c")))

    def test_with_a_smaller_budget(self, tmp_path: Path) -> None:
        """The oldest are dropped."""
        with SessionStore(Stages(), 0, tmp_path) as store:
            for key in "abc":
                store.put(key, moment(ids_of(ord(key))))
        size = sum(files(tmp_path).values())
        with SessionStore(Stages(), 0, tmp_path, size - 1) as store:
            assert (store.keys(), store.statistics.evictions) == (["b", "c"], 1)

    def test_of_other_bundles(self, tmp_path: Path) -> None:
        """Are left alone, and counted."""
        with SessionStore(Stages(identity="another"), 0, tmp_path) as other:
            session = Session(host_engines(PROGRAM), info(), bundle="another")
            session.advance(ids_of(1)[None])
            other.put("a", session)
            with SessionStore(Stages(), 0, tmp_path) as store:
                assert (len(store), store.statistics.other_bundles) == (0, 1)
                with pytest.raises(InputError, match="the snapshot is of another bundle or target than the store"):
                    store.put("a", session)
            assert "a" in other

    def test_one_store_at_a_time(self, tmp_path: Path) -> None:
        """Another is refused, and has it afterwards."""
        with SessionStore(Stages(), 0, tmp_path), pytest.raises(ConfigError, match="another store, of this process or another"):
            SessionStore(Stages(), 0, tmp_path)
        SessionStore(Stages(), 0, tmp_path).close()

    def test_are_for_the_user_alone(self, tmp_path: Path) -> None:
        """They hold what users wrote."""
        with SessionStore(Stages(), 0, tmp_path / "new") as store:
            store.put("a", moment(ids_of(1)))
        (folder,) = (tmp_path / "new").iterdir()
        assert folder.stat().st_mode & 0o777 == 0o700

    @pytest.mark.parametrize("damage", ["alter", "cut", "remove", "replace"])
    def test_a_damaged_block(self, damage: str, tmp_path: Path) -> None:
        """Said once, with what else is lost; nothing else is, and what comes before it can be had by a prompt."""
        shared, last = ids_of(1, 8), ids_of(5, 4)
        with SessionStore(Stages(), 0, tmp_path) as store:
            store.put("a", moment(np.concatenate([shared, last])))
            store.put("b", moment(np.concatenate([shared, last, ids_of(6)])))
            store.put("c", moment(np.concatenate([shared, ids_of(7)])))
            path = store._folder._block_file(store._sequences.by_key["a"].path[2].name)  # type: ignore[union-attr]
            data = path.read_bytes()
            if damage == "remove":
                path.unlink()
            elif damage == "replace":
                path.write_bytes(store._folder._block_file(store._sequences.by_key["a"].path[0].name).read_bytes())  # type: ignore[union-attr]
            else:
                path.write_bytes(data[:-9] if damage == "cut" else data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
            with pytest.raises(InputError, match=r'"b" can.t be read: .* append its tokens again .*lost with it: 1'):
                store.get("b")
            assert (store.keys(), store.statistics.damaged) == (["c"], 2)
            check_goes_on(store.get("c"), np.concatenate([shared, ids_of(7)]))
            assert store.statistics.disk_bytes == sum(files(tmp_path).values())

    def test_a_damaged_block_under_a_prompt(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """Costs the prompt what comes after it, and a warning."""
        shared, last = ids_of(1, 8), ids_of(5, 4)
        with SessionStore(Stages(), 0, tmp_path) as store:
            store.put("a", moment(np.concatenate([shared, last])))
            store.put("b", moment(np.concatenate([shared, ids_of(7)])))
            store._folder._block_file(store._sequences.by_key["a"].path[2].name).write_bytes(b"")  # type: ignore[union-attr]
            found = store.longest_prefix(np.concatenate([shared, last]))
            assert found is not None
            assert found.key == "b"
            check_goes_on(found.snapshot, shared)
            assert "can't be read" in caplog.text

    @pytest.mark.parametrize("which", ["sequences", "blocks"])
    @pytest.mark.parametrize("damage", [b"", b"foveal sequence\nnonsense"])
    def test_found_damaged(self, which: str, damage: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """It is said, and removed; the others are there."""
        with SessionStore(Stages(), 0, tmp_path) as store:
            for key in "ab":
                store.put(key, moment(ids_of(ord(key))))
        path = next(path for path in files(tmp_path) if which in path.parts)
        path.write_bytes(damage)
        with SessionStore(Stages(), 0, tmp_path) as store:
            assert (len(store), store.statistics.damaged) == (1, 1)
            assert str(path.name) in caplog.text
            (key,) = store.keys()
            check_goes_on(store.get(key), ids_of(ord(key)))
            assert store.statistics.disk_bytes == sum(files(tmp_path).values())

    def test_a_process_that_is_killed(self, tmp_path: Path) -> None:
        """At any call to the file system: what is found afterwards is right, and nothing else takes room."""
        ids = [ids_of(1), np.concatenate([ids_of(1), ids_of(2)]), ids_of(3)]

        def work(directory: Path) -> None:
            with SessionStore(Stages(), 0, directory) as store:
                store.put("a", moment(ids[0]))
                store.put("b", moment(ids[1]))
                store.put("a", moment(ids[2]))
                store.discard("b")

        for at_call in itertools.count(1, 3):
            directory = tmp_path / str(at_call)
            was_killed = run_and_kill(lambda directory=directory: work(directory), at_call)
            with SessionStore(Stages(), 0, directory) as store:
                assert store.statistics.damaged == 0
                there = store.keys()
                for key in there:
                    expected = [ids[1]] if key == "b" else [ids[0], ids[2]]
                    got = store.get(key)
                    assert got is not None
                    check_goes_on(got, next(one for one in expected if one.tolist() == got.tokens[0].tolist()))
                assert store.statistics.disk_bytes == sum(files(directory).values())
            if not was_killed:
                assert at_call > 30
                break


class TestWhatGoesWrong:
    """Costs what it hits, and no more."""

    def test_a_full_disk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What would have gone there stays in memory, and the new one is refused; later there is room again."""
        with SessionStore(Stages(), 2 * size_of(12), tmp_path) as store:
            for key in "ab":
                store.put(key, moment(ids_of(ord(key))))
            with monkeypatch.context() as patch:
                patch.setattr(store_folder, "write_atomically", _full_after(2))
                with pytest.raises(StorageError, match="No space left on device; free some space"):
                    store.put("c", moment(ids_of(3)))
                assert (store.statistics.sequences, store.statistics.in_memory) == (2, 2)
                assert store.statistics.disk_bytes == sum(files(tmp_path).values()) == 0
            store.put("c", moment(ids_of(3)))
            for key, seed in (("a", ord("a")), ("b", ord("b")), ("c", 3)):
                check_goes_on(store.get(key), ids_of(seed))

    def test_a_full_disk_at_the_end(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The store is closed all the same."""
        store = SessionStore(Stages(), 1 << 20, tmp_path)
        store.put("a", moment(ids_of(1)))
        with monkeypatch.context() as patch, pytest.raises(StorageError):
            patch.setattr(store_folder, "write_atomically", _full_after(0))
            store.close()
        SessionStore(Stages(), 1 << 20, tmp_path).close()

    def test_no_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Said, and what is there stays; also where a copy that is asked for finds none."""
        store = SessionStore(Stages(), 1 << 20)
        store.put("a", moment(ids_of(1)))
        before = store.statistics.memory_bytes
        for name, doing in (("copied", lambda: store.put("a", moment(ids_of(2)))), ("joined", lambda: store.get("a"))):
            with monkeypatch.context() as patch, pytest.raises(CapacityError, match='no memory is left for a copy of "a"'):
                patch.setattr(session_store, name, _no_memory)
                doing()
        assert store.statistics.memory_bytes == before
        check_goes_on(store.get("a"), ids_of(1))
        with monkeypatch.context() as patch, pytest.raises(CapacityError):
            patch.setattr(session_store, "copied", _no_memory)
            store.put("b", moment(ids_of(1)[:10]))  # it shares blocks with the other, and has one of its own
        store.discard("a")
        assert store.statistics.memory_bytes == 0

    def test_other_engines(self) -> None:
        """Of no bundle, and told by their shapes."""
        store = SessionStore(Stages(), 1 << 20)
        store.put("a", moment(ids_of(1)))
        for program in (hourglass(3, 2), paged(2, 4)):
            session = Session(host_engines(program), info())
            session.advance(ids_of(1)[None])
            with pytest.raises(InputError, match="rows"):
                store.put("b", session)
        assert store.keys() == ["a"]

    def test_a_session_that_is_busy_elsewhere(self) -> None:
        """Is not waited for."""
        store, session = SessionStore(Stages(), 1 << 20), session_of(ids=ids_of(1))
        with session.turn, pytest.raises(RuntimeError, match="another thread"):
            store.put("a", session)
        assert len(store) == 0

    def test_a_closed_store(self) -> None:
        """Says so; closing again is nothing."""
        store = SessionStore(Stages(), 1 << 20)
        store.close()
        store.close()
        for call in (lambda: store.get("a"), lambda: store.put("a", moment(ids_of(1))), lambda: "a" in store, store.keys):
            with pytest.raises(InputError, match="the store is closed; open another"):
                call()

    @pytest.mark.parametrize(
        ("arguments", "error", "said"),
        [
            ({"memory_bytes": -1}, ConfigError, "memory_bytes must be a whole number of bytes, 0 or more, got -1"),
            ({"memory_bytes": 1.5}, ConfigError, "memory_bytes must be a whole number of bytes, 0 or more, got 1.5"),
            ({"memory_bytes": 1, "disk_bytes": True}, ConfigError, "disk_bytes must be a whole number of bytes"),
            ({"memory_bytes": 1, "disk_bytes": 5}, ConfigError, "got disk_bytes=5 and no directory"),
            ({"memory_bytes": 1, "directory": 5}, ConfigError, "the directory must be a path, got 5"),
            ({"memory_bytes": 1, "directory": "a\0b"}, ConfigError, r"the directory must be a path, got 'a\\x00b'"),
            (
                {"memory_bytes": 1, "directory": __file__},
                StorageError,
                "a part of the path is a file",
            ),
        ],
    )
    def test_settings(self, arguments: dict[str, Any], error: type[Exception], said: str) -> None:
        """That mean nothing."""
        with pytest.raises(error, match=said):
            SessionStore(Stages(), **arguments)

    def test_a_directory_for_no_bundle(self, tmp_path: Path) -> None:
        """There is nothing to tell its files by."""
        with pytest.raises(ConfigError, match="the engines are of no bundle"):
            SessionStore(Stages(identity=""), 0, tmp_path)

    def test_what_is_no_session_key_or_prompt(self) -> None:
        """Named by its type."""
        store = SessionStore(Stages(), 1 << 20)
        with pytest.raises(InputError, match="expected a session or its snapshot, got int"):
            store.put("a", 3)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="a key must be text, got int"):
            store.get(3)  # type: ignore[arg-type]
        with pytest.raises(InputError, match=r"got Batch; .* what batch.snapshot\(sequence\) gave"):
            store.put("a", Batch(host_engines(hourglass(2, 2)), info(), 1))  # type: ignore[arg-type]
        with pytest.raises(InputError, match=r"the key '\\ud800' has half a character"):
            store.put("\ud800", moment(ids_of(1)))  # it could be kept, but never written
        with pytest.raises(InputError, match="the prompt's ids hold 41, which is outside the vocabulary"):
            store.longest_prefix([41])


def test_several_threads(tmp_path: Path) -> None:
    """Each gets what it put, however little room there is for all."""
    failed: list[BaseException] = []
    with SessionStore(Stages(), 2 * size_of(12), tmp_path, 200_000) as store:

        def work(number: int) -> None:
            try:
                for turn in range(12):
                    ids = ids_of(number * 100 + turn)
                    store.put(f"{number}", moment(ids))
                    store.longest_prefix(ids)
                    with nullcontext(store.get(f"{number}")) as got:
                        if got is not None:
                            check_goes_on(got, ids)
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        assert store.statistics.memory_bytes <= 2 * size_of(12)
        assert store.statistics.disk_bytes == sum(files(tmp_path).values())


def _full_after(writes: int) -> Callable[[Path, bytes], None]:
    counter, real = itertools.count(), store_folder.write_atomically

    def write(path: Path, data: bytes) -> None:
        if next(counter) >= writes:
            raise store_folder_error(path)
        real(path, data)

    return write


def store_folder_error(path: Path) -> StorageError:
    """What a full disk makes."""
    from foveal.storage import named

    return named(OSError(errno.ENOSPC, "No space left on device"), path)


def _no_memory(*_: object) -> None:
    raise MemoryError("Unable to allocate")


def test_a_block_is_what_its_tokens_wrote() -> None:
    """So that its size is known before it is copied."""
    written = moment(ids_of(1, 20)).written
    parts = [part(written, PROGRAM, start, start + 4).nbytes for start in range(0, 20, 4)]
    assert sum(parts) == written.nbytes
