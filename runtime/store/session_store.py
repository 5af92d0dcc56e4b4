"""Sequences between their calls: in memory as far as a budget goes, then on disk, and what they have in common only once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Protocol

import numpy.typing as npt

from ...contract import StageSpec, vocab_size_of
from ...errors import CapacityError, ConfigError, DamagedStateError, InputError
from ..decoder import Written
from ..host import check_same_shapes
from ..ids import checked_ids
from ..snapshots import Snapshot
from .blocks import Block, StoredSequence
from .cuts import check_rows, copied, cut, joined, part, without_rows
from .levels import in_memory
from .store_folder import StoreFolder
from .store_statistics import StoreStatistics
from .stored_sequences import StoredSequences

_log = logging.getLogger("foveal")


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

    position: int

    def snapshot(self) -> Snapshot:
        """Copy everything written so far."""
        ...


class Restorable(Protocol):
    """What goes on from a copy: a `Session`."""

    def restore(self, snapshot: Snapshot) -> None:
        """Go to a snapshot."""
        ...


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
        ConfigError: a budget below 0, `disk_bytes` without a directory, one that is no path or that another store is open on,
            or one for a model of no bundle, whose files nothing could be told by.
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
        if not isinstance(directory, str | Path | None) or "\0" in str(directory):
            raise ConfigError(f"the directory must be a path, got {directory!r}")
        if directory is not None and not model.identity:
            raise ConfigError("the engines are of no bundle, by which a directory's files are told apart; leave it out")
        self._specs, self._identity = model.specs, model.identity
        self._said_budgets = f"memory_bytes is {memory_bytes:,}, disk_bytes {_said_disk(directory, disk_bytes)}"
        self._turn, self._is_open = threading.RLock(), True
        self._layouts: dict[int, Written] = {}
        self._counts = dict.fromkeys(("hits", "misses", "prefix_hits", "prefix_misses"), 0)
        self._folder = folder = None if directory is None else StoreFolder(Path(directory), model.identity)
        try:
            self._other_bundles = 0 if folder is None else folder.others
            self._sequences = StoredSequences(self._specs, self._identity, memory_bytes, disk_bytes, folder)
        except BaseException:
            if folder is not None:
                folder.close()
            raise

    @property
    def identity(self) -> str:
        """Of the bundle and target whose sequences it keeps; empty: of no bundle."""
        return self._identity

    def put(self, key: str, state: Snapshot | HasSnapshot) -> None:
        """Keep a copy of a session, or what a session's `snapshot` gave, in the place of what was kept under the key.

        In case of an error what is kept stays, but for what was dropped to make room before the machine's memory ran out.

        Raises:
            InputError: a key that is no text or that no file can hold, or a snapshot of another bundle, target or kind of
                engines.
            SessionBusyError: another thread is in a call of the session.
            CapacityError: there is no room for it, in the budgets or in the machine's memory.
            StorageError: what was to make room for it, or the sequence itself, can't be written.
        """
        snapshot = _snapshot_of(state)
        with self._working(key), _room_for_copy(key):
            self._check(snapshot)
            replaced = self._sequences.by_key.get(key)
            if replaced is not None:
                self._sequences.touch(replaced)  # it makes room last: of a sequence that went on, most is shared
            sequence = self._sequences.hold(key, snapshot.tokens, snapshot.reached)
            try:
                self._take(sequence, snapshot)
                self._sequences.keep(sequence)
            except BaseException:
                self._sequences.let_go(sequence)
                raise

    def get(self, key: str) -> Snapshot | None:
        """A copy of what is kept; None: there is nothing, or no longer.

        Raises:
            InputError: a key that is no text.
            DamagedStateError: files that were cut short, altered or removed: the sequence is dropped, and with it those in
                files that share these very rows.
            CapacityError: the copy finds no room in the machine's memory.
            StorageError: the disk refuses to be read, or to be written by what makes room; all that is kept stays.
        """
        with self._working(key), _room_for_copy(key):
            sequence = self._sequences.by_key.get(key)
            self._counts["misses" if sequence is None else "hits"] += 1
            if sequence is None:
                return None
            self._sequences.touch(sequence)
            try:
                parts = self._brought_back(sequence)
            except _DamagedError as error:
                lost = self._sequences.lose(error.block)
                raise DamagedStateError(
                    f'what was stored of "{key}" can\'t be read: {error}; append its tokens again '
                    f"(sequences that are lost with it: {lost - 1})"
                ) from None
        return self._joined(sequence, parts, sequence.position)

    def restore(self, key: str, session: Restorable) -> bool:
        """Let a session go on from what is kept; False: there is nothing, or no longer, and the session is unchanged.

        It raises what `get` and the session's own `restore` raise.
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
            sequence = self._sequences.by_key.get(key)
            if sequence is not None:
                self._sequences.forget(sequence)
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
            found = self._sequences.nearest(prompt)
            while found is not None:
                try:
                    parts = [self._read(block) for block in found.path]
                    break
                except _DamagedError as error:
                    _log.warning("what a prompt begins with can't be read: %s; it is dropped", error)
                    self._sequences.lose(error.block)
                found = self._sequences.nearest(prompt)
            self._counts["prefix_misses" if found is None else "prefix_hits"] += 1
            if found is None:
                return None
            self._sequences.touch(found.sequence)
        return Prefix(found.sequence.key, self._joined(found.sequence, parts, found.tokens))

    def position(self, key: str) -> int | None:
        """How many tokens are kept, without a look at them; None: there is nothing, or no longer."""
        with self._working(key):
            sequence = self._sequences.by_key.get(key)
            return None if sequence is None else sequence.position

    def keys(self) -> list[str]:
        """Of all sequences; those used least recently come first."""
        with self._working():
            return [sequence.key for sequence in self._sequences.by_use()]

    def __contains__(self, key: object) -> bool:
        with self._working():
            return key in self._sequences.by_key

    def __len__(self) -> int:
        with self._working():
            return len(self._sequences.by_key)

    @property
    def statistics(self) -> StoreStatistics:
        """As of now."""
        with self._turn:
            levels = self._sequences.levels
            return StoreStatistics(
                sequences=len(self._sequences.by_key),
                in_memory=len(levels.resident),
                on_disk=len(levels.filed),
                memory_bytes=levels.memory,
                disk_bytes=levels.disk,
                spills=levels.spills,
                evictions=self._sequences.evictions,
                damaged=self._sequences.damaged,
                other_bundles=self._other_bundles,
                **self._counts,
            )

    def flush(self) -> None:
        """Write what is in memory alone, as far as there is a directory with room: a store that is opened on it finds it.

        Raises:
            StorageError: the disk refuses; all that is kept stays.
        """
        with self._working():
            self._sequences.flush()

    def clear(self) -> None:
        """Keep nothing, in memory and in files.

        Raises:
            StorageError: the disk does not let a file be removed; what it is of is still there.
        """
        with self._working():
            for sequence in self._sequences.by_use():
                self._sequences.forget(sequence)

    def close(self) -> None:
        """Write what is in memory alone, as `flush`, and let go of memory and directory; calls after it raise InputError.

        Raises:
            StorageError: not all could be written; the store is closed all the same.
        """
        with self._turn:
            if not self._is_open:
                return
            try:
                self._sequences.flush()
            finally:
                self._is_open = False
                if self._folder is not None:
                    self._folder.close()
                self._sequences = StoredSequences(self._specs, self._identity, 0, None, None)

    def __enter__(self) -> SessionStore:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @contextmanager
    def _working(self, key: object = "") -> Iterator[None]:
        if not isinstance(key, str):
            raise InputError(f"a key must be text, got {type(key).__name__}; give the session's name")
        if not _is_unicode(key):
            raise InputError(f"the key {key!r} has half a character, which no file can hold; give text that UTF-8 can write")
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
        if self._sequences.levels.fits_memory(sequence):
            self._sequences.levels.admit(sequence, lambda block: copied(given(block)))
        elif not self._sequences.levels.write(sequence, given):
            raise CapacityError(
                f'"{sequence.key}" takes {sequence.nbytes:,} bytes, more than the store may hold: '
                f"{self._said_budgets}; give it more of either"
            )

    def _brought_back(self, sequence: StoredSequence) -> list[Written]:
        """What its blocks wrote, which is in memory from now on if there is room."""
        if sequence not in self._sequences.levels.resident and self._sequences.levels.fits_memory(sequence):
            self._sequences.levels.admit(sequence, self._read)
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


class _DamagedError(InputError):
    """A block's file can't be read."""

    def __init__(self, said: str, block: Block) -> None:
        super().__init__(said)
        self.block = block


@contextmanager
def _room_for_copy(key: str) -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise CapacityError(f'no memory is left for a copy of "{key}" ({error}); give the store less memory_bytes') from error


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _snapshot_of(state: object) -> Snapshot:
    # a batch has a `snapshot` too, of one of its sequences; it has no position
    snapshot = state.snapshot() if hasattr(state, "snapshot") and hasattr(state, "position") else state
    if not isinstance(snapshot, Snapshot):
        raise InputError(
            f"expected a session or its snapshot, got {type(state).__name__}; hand over either, and of a batch what "
            "batch.snapshot(sequence) gave"
        )
    return snapshot


def _check_budget(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConfigError(f"{name} must be a whole number of bytes, 0 or more, got {value!r}")


def _said_disk(directory: str | Path | None, disk_bytes: int | None) -> str:
    if directory is None:
        return "0, as there is no directory"
    return "as much as there is" if disk_bytes is None else f"{disk_bytes:,}"
