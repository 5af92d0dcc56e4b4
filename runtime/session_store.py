"""Sequences between their calls: in memory as far as a budget goes, then on disk, and what they have in common only once."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Protocol

import numpy.typing as npt

from ..contract import StageSpec, vocab_size_of
from ..errors import CapacityError, ConfigError, InputError
from .blocks import Block, BlockTree, Ids, StoredSequence
from .cuts import check_rows, copied, cut, is_divisible, joined, least_of, part, without_rows
from .decoder import Written
from .host import check_same_shapes
from .ids import checked_ids
from .levels import Levels, in_memory
from .snapshots import Snapshot
from .store_folder import Record, StoreFolder

_log = logging.getLogger("foveal")
_COUNTED = ("hits", "misses", "prefix_hits", "prefix_misses", "evictions", "damaged", "other_bundles")


class HasStages(Protocol):
    """What sequences are of: a `Model`."""

    @property
    def specs(self) -> Sequence[StageSpec]:
        """Of its stages."""
        ...

    @property
    def identity(self) -> str:
        """By which snapshots are told apart; empty: of no bundle."""
        ...


class HasSnapshot(Protocol):
    """What can be copied: a `Session`."""

    def snapshot(self) -> Snapshot:
        """Copy everything written so far."""
        ...


class Restorable(Protocol):
    """What goes on from a copy: a `Session`."""

    def restore(self, snapshot: Snapshot) -> None:
        """Go to a snapshot."""
        ...


@dataclass(frozen=True)
class StoreStatistics:
    """What a store holds, and what it did since it was opened.

    Attributes:
        sequences: that it holds; `in_memory` and `on_disk` are how many are wholly there, and may be both.
        memory_bytes, disk_bytes: that they take; what several share counts once.
        hits, misses: sequences that were asked for by key and were there, or were not.
        prefix_hits, prefix_misses: prompts that began as some sequence did, or as none.
        spills: sequences that went from memory to disk.
        evictions: sequences that were dropped for want of room.
        damaged: sequences that were dropped because their files were cut short, altered or removed.
        other_bundles: folders in the directory that are of other bundles or targets, and are left alone.
    """

    sequences: int = 0
    in_memory: int = 0
    on_disk: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0
    hits: int = 0
    misses: int = 0
    prefix_hits: int = 0
    prefix_misses: int = 0
    spills: int = 0
    evictions: int = 0
    damaged: int = 0
    other_bundles: int = 0


class Prefix(NamedTuple):
    """The key of a stored sequence that begins as a prompt does, and a copy of its state up to where they part."""

    key: str
    snapshot: Snapshot


class SessionStore:
    """Keeps copies of sessions by key, within budgets, and finds those that begin as a prompt does.

    State has three levels: a session's own, on a device or in the host's memory, which is there as long as the session is; the
    store's copy in the host's memory; and files. What exceeds `memory_bytes` goes to files, the sequence used least recently
    first, or is dropped where there is no directory; what exceeds `disk_bytes` is dropped. A sequence larger than the memory's
    budget goes straight to files. What is asked for by key comes back into memory.

    Tokens that several sequences begin with are kept once, in blocks of `BLOCK_TOKENS`: the sequence stored first gives them
    its rows. Rows of equal tokens are equal, but for the order in which numbers are added up when the tokens come in other
    chunks, and in quantised models, whose activations are rounded, for a rounding step now and then: what shares nothing comes
    back exactly as it was stored, the rest as if its beginning had been read in the chunks in which the other's was.

    Models that compact their past, and batches of several sequences, are kept whole, each by itself. By a prompt the latter are
    not found, the former only as far back as they can be rewound.

    All methods may be called from any thread; one works at a time, its reading and writing of files included. What is returned
    is the caller's own and does not count against the budget; neither do token ids, of which 8 bytes each stay in memory.

    Args:
        model: what the sequences are of; those of another bundle or target are refused.
        memory_bytes: the most that copies take in memory.
        directory: where files go; what an earlier store of this model left there is found again. One store at a time.
        disk_bytes: the most that files take; None: as much as there is.

    Raises:
        ConfigError: a budget below 0, `disk_bytes` without a directory, a directory that another store is open on, or one for a
            model of no bundle, whose files nothing could be told by.
        StorageError: the directory can't be read or written.
    """

    def __init__(
        self,
        model: HasStages,
        memory_bytes: int,
        directory: str | Path | None = None,
        disk_bytes: int | None = None,
    ) -> None:
        _check_budget("memory_bytes", memory_bytes)
        if disk_bytes is not None:
            _check_budget("disk_bytes", disk_bytes)
            if directory is None:
                raise ConfigError(f"got disk_bytes={disk_bytes} and no directory; give one, or leave disk_bytes out")
        if directory is not None and not model.identity:
            raise ConfigError("the engines are of no bundle, by which a directory's files are told apart; leave it out")
        self._specs, self._identity, self._is_divisible = model.specs, model.identity, is_divisible(model.specs)
        self._most_memory, self._most_disk = memory_bytes, disk_bytes
        self._turn, self._is_open, self._clock = threading.RLock(), True, 0
        self._tree, self._sequences = BlockTree(model.identity), {}  # type: BlockTree, dict[str, StoredSequence]
        self._layouts: dict[int, Written] = {}
        self._counts = dict.fromkeys(_COUNTED, 0)
        folder = None if directory is None else StoreFolder(Path(directory), model.identity)
        arrays = sum(1 + len(spec.caches) for spec in model.specs)
        self._folder, self._levels = folder, Levels(memory_bytes, disk_bytes, folder, arrays, self._evict)
        if folder is not None:
            try:
                self._find(folder)
            except BaseException:
                folder.close()
                raise

    def put(self, key: str, state: Snapshot | HasSnapshot) -> None:
        """Keep a copy of a session, or what a session's `snapshot` gave, in the place of what was kept under the key.

        Raises:
            InputError: a key that is no text, or a snapshot of another bundle, target or kind of engines.
            SessionBusyError: another thread is in a call of the session.
            CapacityError: there is no room for it, in the budgets or in the machine's memory.
            StorageError: what was to make room for it, or the sequence itself, can't be written.
            In all cases what is kept stays.
        """
        snapshot = _snapshot_of(state)
        with self._working(key), _room_for_copy(key):
            self._check(snapshot)
            replaced = self._sequences.get(key)
            if replaced is not None:
                self._touch(replaced)  # it makes room last: of a sequence that went on, most is shared
            salt = "" if self._is_divisible and snapshot.batch == 1 else secrets.token_hex(8)
            sequence = self._tree.hold(key, snapshot.tokens, snapshot.reached, salt)
            try:
                self._take(sequence, snapshot)
                replaced = self._sequences.get(key)
                if replaced is not None:
                    self._levels.forget(replaced, is_replaced=sequence in self._levels.filed)
                    self._tree.release(replaced)
            except BaseException:
                self._levels.forget(sequence)
                self._tree.release(sequence)
                raise
            self._sequences[key] = sequence
            self._touch(sequence)

    def get(self, key: str) -> Snapshot | None:
        """A copy of what is kept; None: there is nothing, or no longer.

        Raises:
            InputError: a key that is no text, or files that were cut short, altered or removed: the sequence is dropped, and
                with it those in files that share these very rows.
            CapacityError: the copy finds no room in the machine's memory.
            StorageError: the disk refuses to be read, or to be written by what makes room; all that is kept stays.
        """
        with self._working(key), _room_for_copy(key):
            sequence = self._sequences.get(key)
            self._counts["misses" if sequence is None else "hits"] += 1
            if sequence is None:
                return None
            self._touch(sequence)
            try:
                parts = self._brought_back(sequence)
            except _DamagedError as error:
                lost = self._lose(error.block)
                raise InputError(
                    f'what was stored of "{key}" can\'t be read: {error}; append its tokens again '
                    f"(sequences that are lost with it: {lost - 1})"
                ) from None
        return self._joined(sequence, parts, sequence.position)

    def restore(self, key: str, session: Restorable) -> bool:
        """Let a session go on from what is kept; False: there is nothing, or no longer, and the session is unchanged.

        Raises:
            As `get`, and as the session's own `restore`.
        """
        snapshot = self.get(key)
        if snapshot is not None:
            session.restore(snapshot)
        return snapshot is not None

    def pop(self, key: str) -> Snapshot | None:
        """`get`, and keep it no longer."""
        with self._turn:
            found = self.get(key)
            self.discard(key)
            return found

    def discard(self, key: str) -> bool:
        """Keep a sequence no longer; whether there was one.

        Raises:
            InputError: a key that is no text.
            StorageError: the disk does not let its file be removed; it is still there.
        """
        with self._working(key):
            sequence = self._sequences.get(key)
            if sequence is not None:
                self._forget(sequence)
            return sequence is not None

    def longest_prefix(self, ids: npt.ArrayLike) -> Prefix | None:
        """The sequence that has most tokens in common with a prompt, from the first one on, and its state after these.

        Leave out the prompt's last token: it is what the session has to be given to say what comes next. Sequences in files are
        found as well, and stay there.

        Args:
            ids: integers `[T]`.

        Raises:
            InputError: other ids than the model's.
            CapacityError: the copy finds no room in the machine's memory.
            StorageError: the disk refuses to be read.
        """
        prompt = checked_ids(ids, vocab_size_of(self._specs), "the prompt's ids")
        with self._working():
            found = self._nearest(prompt)
            while found is not None:
                sequence, path, tokens = found
                try:
                    parts = [self._read(block) for block in path]
                    break
                except _DamagedError as error:
                    _log.warning("what a prompt begins with can't be read: %s; it is dropped", error)
                    self._lose(error.block)
                found = self._nearest(prompt)
            self._counts["prefix_misses" if found is None else "prefix_hits"] += 1
            if found is None:
                return None
            self._touch(sequence)
        return Prefix(sequence.key, self._joined(sequence, parts, tokens))

    def position(self, key: str) -> int | None:
        """How many tokens are kept, without a look at them; None: there is nothing, or no longer."""
        with self._working(key):
            sequence = self._sequences.get(key)
            return None if sequence is None else sequence.position

    def keys(self) -> list[str]:
        """Of all sequences; those used least recently come first."""
        with self._working():
            return [sequence.key for sequence in self._by_use()]

    def __contains__(self, key: object) -> bool:
        with self._working():
            return key in self._sequences

    def __len__(self) -> int:
        with self._working():
            return len(self._sequences)

    @property
    def statistics(self) -> StoreStatistics:
        """As of now."""
        with self._turn:
            levels = self._levels
            return StoreStatistics(
                sequences=len(self._sequences),
                in_memory=len(levels.resident),
                on_disk=len(levels.filed),
                memory_bytes=levels.memory,
                disk_bytes=levels.disk,
                spills=levels.spills,
                **self._counts,
            )

    def flush(self) -> None:
        """Write what is in memory alone, as far as there is a directory with room: a store that is opened on it finds it.

        Raises:
            StorageError: the disk refuses; all that is kept stays.
        """
        with self._working():
            self._flush()

    def clear(self) -> None:
        """Keep nothing, in memory and in files.

        Raises:
            StorageError: the disk does not let a file be removed; what it is of is still there.
        """
        with self._working():
            for sequence in self._by_use():
                self._forget(sequence)

    def close(self) -> None:
        """Write what is in memory alone, as `flush`, and let go of memory and directory; calls after it raise InputError.

        Raises:
            StorageError: not all could be written; the store is closed all the same.
        """
        with self._turn:
            if not self._is_open:
                return
            try:
                self._flush()
            finally:
                self._is_open = False
                if self._folder is not None:
                    self._folder.close()
                self._tree, self._sequences = BlockTree(self._identity), {}
                self._levels = Levels(0, None, None, 0, self._evict)

    def __enter__(self) -> SessionStore:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @contextmanager
    def _working(self, key: object = "") -> Iterator[None]:
        if not isinstance(key, str):
            raise InputError(f"a key must be text, got {type(key).__name__}; give the session's name")
        with self._turn:
            if not self._is_open:
                raise InputError("the store is closed; open another")
            yield

    def _check(self, snapshot: Snapshot) -> None:
        """That a snapshot may stand beside the others."""
        if snapshot.bundle and self._identity and snapshot.bundle != self._identity:
            raise InputError(
                "the snapshot is of another bundle or target than the store; put it into a store of the bundle that gave it"
            )
        check_rows(snapshot, self._specs)
        layout = self._layouts.setdefault(snapshot.batch, without_rows(snapshot.written))
        check_same_shapes(snapshot.written, layout)

    def _take(self, sequence: StoredSequence, snapshot: Snapshot) -> None:
        """Into memory, or straight to files."""

        def given(block: Block) -> Written:
            return snapshot.written if sequence.salt else part(snapshot.written, self._specs, block.start, block.stop)

        for block in sequence.path:
            if block.written is None and not block.file_bytes:
                block.nbytes = given(block).nbytes
        if self._levels.fits_memory(sequence):
            self._levels.admit(sequence, lambda block: copied(given(block)))
        elif not self._levels.write(sequence, given):
            raise CapacityError(
                f'"{sequence.key}" takes {sequence.nbytes:,} bytes, more than the store may hold: memory_bytes is '
                f"{self._most_memory:,}, disk_bytes {self._said_disk}; give it more of either"
            )

    @property
    def _said_disk(self) -> str:
        return "0, as there is no directory" if self._folder is None else f"{self._most_disk:,}"

    def _brought_back(self, sequence: StoredSequence) -> list[Written]:
        """What its blocks wrote, which is in memory from now on if there is room."""
        if sequence not in self._levels.resident and self._levels.fits_memory(sequence):
            self._levels.admit(sequence, self._read)
        return [self._read(block) for block in sequence.path]

    def _read(self, block: Block) -> Written:
        """What a block wrote, from where it is."""
        if block.written is not None or self._folder is None:
            return in_memory(block)
        try:
            return self._folder.read_block(block.name)
        except InputError as error:
            raise _DamagedError(str(error), block) from error

    def _joined(self, sequence: StoredSequence, parts: list[Written], tokens: int) -> Snapshot:
        """A copy of a sequence's first tokens, of the blocks that have them; needs no turn, as blocks never change."""
        with _room_for_copy(sequence.key):
            ids = sequence.tokens
            if sequence.salt:
                whole = Snapshot(sequence.position, sequence.reached, sequence.batch, self._identity, ids, parts[0])
                return cut(whole, self._specs, tokens)
            start = sequence.path[len(parts) - 1].start
            last = part(parts[-1], self._specs, start, tokens, begin=start)
            written = joined([*parts[:-1], last], self._specs, tokens)
            reached = sequence.reached if tokens == sequence.position else tokens
            return Snapshot(tokens, reached, 1, self._identity, ids[:, :tokens].copy(), written)

    def _nearest(self, prompt: Ids) -> tuple[StoredSequence, list[Block], int] | None:
        """The sequence that begins most as a prompt does, the blocks that have these tokens, and how many they are."""
        if self._is_divisible:
            path, tokens = self._tree.longest(prompt)
            return (max(path[-1].holders, key=_use), path, tokens) if path else None
        own = [(tokens, sequence.used, sequence) for sequence, tokens in self._tree.own(prompt)]
        tokens, _, sequence = max((one for one in own if self._can_cut(one[2], one[0])), default=(0, 0, None))
        return None if sequence is None else (sequence, sequence.path, tokens)

    def _can_cut(self, sequence: StoredSequence, tokens: int) -> bool:
        return tokens > 0 and tokens >= least_of(self._specs, sequence.position, sequence.reached)

    def _touch(self, sequence: StoredSequence) -> None:
        self._clock += 1
        sequence.used = self._clock
        self._levels.touch(sequence)

    def _by_use(self) -> list[StoredSequence]:
        return sorted(self._sequences.values(), key=_use)

    def _evict(self, sequence: StoredSequence) -> None:
        self._forget(sequence)
        self._counts["evictions"] += 1

    def _forget(self, sequence: StoredSequence) -> None:
        self._levels.forget(sequence)
        self._tree.release(sequence)
        del self._sequences[sequence.key]

    def _lose(self, block: Block) -> int:
        """Forget the sequences that need a block which can't be read; how many they were."""
        lost = [sequence for sequence in block.holders if sequence not in self._levels.resident]
        for sequence in lost:
            self._forget(sequence)
        self._counts["damaged"] += len(lost)
        return len(lost)

    def _flush(self) -> None:
        if self._folder is not None:
            self._levels.flush()
            for sequence in self._by_use():
                if sequence in self._levels.filed:
                    self._folder.touch(sequence.key)

    def _find(self, folder: StoreFolder) -> None:
        """What an earlier store left; what is not whole is removed, and what is too much."""
        for path, record in folder.records():
            try:
                self._adopt(folder, path, record)
            except InputError as error:
                _log.warning("a stored sequence is lost: %s", error)
                self._counts["damaged"] += 1
                folder.remove(path)
        folder.keep_blocks({block.name for sequence in self._sequences.values() for block in sequence.path})
        self._counts["other_bundles"] = folder.others
        self._levels.trim()

    def _adopt(self, folder: StoreFolder, path: Path, record: Record | InputError) -> None:
        if isinstance(record, InputError):
            raise record
        sequence = self._tree.hold(record.key, record.ids(), record.reached, record.salt)
        try:
            sizes = list(zip(sequence.path, record.nbytes, record.file_bytes, strict=True))
            for block, nbytes, file_bytes in sizes:
                if folder.size_of_block(block.name) != file_bytes:
                    raise InputError(f"of {path} block {block.name} was cut short or removed")
                block.nbytes, block.file_bytes = nbytes, file_bytes
        except ValueError as error:
            self._tree.release(sequence)
            raise error if isinstance(error, InputError) else InputError(f"{path} has blocks of another size") from None
        self._sequences[record.key] = sequence
        self._levels.adopt(sequence, path.stat().st_size)
        self._touch(sequence)


class _DamagedError(InputError):
    """A block's file can't be read."""

    def __init__(self, said: str, block: Block) -> None:
        super().__init__(said)
        self.block = block


def _use(sequence: StoredSequence) -> int:
    return sequence.used


@contextmanager
def _room_for_copy(key: str) -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise CapacityError(f'no memory is left for a copy of "{key}" ({error}); give the store less memory_bytes') from error


def _snapshot_of(state: object) -> Snapshot:
    snapshot = state.snapshot() if hasattr(state, "snapshot") else state
    if not isinstance(snapshot, Snapshot):
        raise InputError(f"expected a session or its snapshot, got {type(state).__name__}; hand over either")
    return snapshot


def _check_budget(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConfigError(f"{name} must be a whole number of bytes, 0 or more, got {value!r}")
