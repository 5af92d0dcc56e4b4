"""The sequences of a store: by key, by what they begin with, and by when they were used last."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ...contract import StageSpec, clocks_of
from ...errors import InputError
from ..rows import Ids
from .blocks import Block, BlockTree, StoredSequence
from .cuts import is_divisible, is_recurrent, least_of
from .levels import Levels
from .store_folder import Record, StoreFolder

_log = logging.getLogger("foveal")


class Beginning(NamedTuple):
    """A sequence that begins as a prompt does: with so many tokens, which these blocks have, the last perhaps in part."""

    sequence: StoredSequence
    path: list[Block]
    tokens: int


class StoredSequences:
    """All that is kept, wherever it is.

    Args:
        specs, identity: of what it is.
        memory_bytes, disk_bytes, folder: as of `Levels`.

    Attributes:
        levels: where it is.
        by_key: the sequences.
        evictions, damaged: how many were dropped for want of room, and because their files can't be read.
    """

    def __init__(
        self,
        specs: Sequence[StageSpec],
        identity: str,
        memory_bytes: int,
        disk_bytes: int | None,
        folder: StoreFolder | None,
    ) -> None:
        self._specs, self._folder, self._clock = specs, folder, 0
        self._is_divisible, self._tree = is_divisible(specs), BlockTree(identity)
        arrays = sum(1 + len(spec.caches) for spec in specs) + len(clocks_of(specs))
        self.levels = Levels(memory_bytes, disk_bytes, folder, arrays, self._evict)
        self.by_key: dict[str, StoredSequence] = {}
        self.evictions = self.damaged = 0
        if folder is not None:
            self._find(folder)

    def hold(self, key: str, ids: Ids, reached: int) -> StoredSequence:
        """Blocks for a sequence of ids `[B, T]` that is about to be kept; `keep` it then, or `let_go`."""
        shares = self._is_divisible and ids.shape[0] == 1
        return self._tree.hold(key, ids, reached, "" if shares else secrets.token_hex(8))

    def keep(self, sequence: StoredSequence) -> None:
        """In the place of what has its key. Raises StorageError where the disk does not let that be removed; it stays then."""
        replaced = self.by_key.get(sequence.key)
        if replaced is not None:
            self.levels.forget(replaced, is_replaced=sequence in self.levels.filed)
            self._tree.release(replaced)
        self.by_key[sequence.key] = sequence
        self.touch(sequence)

    def let_go(self, sequence: StoredSequence) -> None:
        """Of one that was not kept."""
        self.levels.forget(sequence)
        self._tree.release(sequence)

    def forget(self, sequence: StoredSequence) -> None:
        """Keep it no longer. Raises StorageError where the disk does not let its file be removed; it stays then."""
        self.let_go(sequence)
        del self.by_key[sequence.key]

    def lose(self, block: Block) -> int:
        """Forget the sequences that need a block which can't be read; how many they were."""
        lost = list(block.holders)  # none is in memory, or the block would be
        for sequence in lost:
            self.forget(sequence)
        self.damaged += len(lost)
        return len(lost)

    def touch(self, sequence: StoredSequence) -> None:
        """It is used."""
        self._clock += 1
        sequence.used = self._clock
        self.levels.touch(sequence)

    def by_use(self) -> list[StoredSequence]:
        """Those used least recently first."""
        return sorted(self.by_key.values(), key=_use)

    def nearest(self, prompt: Ids) -> Beginning | None:
        """The sequence that has most of its first tokens in common with ids `[T]`; of several the one used last."""
        if self._is_divisible:
            path, tokens = self._tree.longest(prompt)
            return Beginning(max(path[-1].holders, key=_use), path, tokens) if path else None
        own = (Beginning(sequence, sequence.path, tokens) for sequence, tokens in self._tree.own(prompt))
        can_cut = (one for one in own if one.tokens and self._can_cut(one.sequence, one.tokens))
        return max(can_cut, key=lambda one: (one.tokens, one.sequence.used), default=None)

    def _can_cut(self, sequence: StoredSequence, tokens: int) -> bool:
        """Whether its state can be cut to so many tokens."""
        if is_recurrent(self._specs):
            return tokens == sequence.position
        return tokens >= least_of(self._specs, sequence.reached)

    def flush(self) -> None:
        """Write what is in memory alone, and who was used when. Raises StorageError where the disk refuses; all stays."""
        if self._folder is not None:
            self.levels.flush()
            for sequence in self.by_use():
                if sequence in self.levels.filed:
                    self._folder.touch(sequence.key)

    def _evict(self, sequence: StoredSequence) -> None:
        self.forget(sequence)
        self.evictions += 1

    def _find(self, folder: StoreFolder) -> None:
        """What an earlier store left; what is not whole is removed, and what is too much."""
        for path, record in folder.records():
            try:
                self._adopt(folder, path, record)
            except InputError as error:
                _log.warning("a stored sequence is lost: %s", error)
                self.damaged += 1
                folder.remove(path)
        folder.keep_blocks({block.name for sequence in self.by_key.values() for block in sequence.path})
        self.levels.trim()

    def _adopt(self, folder: StoreFolder, path: Path, record: Record | InputError) -> None:
        if isinstance(record, InputError):
            raise record
        sequence = self._tree.hold(record.key, record.ids(), record.reached, record.salt)
        sizes = [folder.size_of_block(block.name) for block in sequence.path]
        if not len(sizes) == len(record.nbytes) == len(record.file_bytes):
            self._tree.release(sequence)
            raise InputError(f"{path} has another number of blocks than its tokens make")
        for block, size, written in zip(sequence.path, sizes, record.file_bytes, strict=True):
            if size != written:
                self._tree.release(sequence)
                raise InputError(f"of {path} the block {block.name} was cut short or removed")
        for block, nbytes, file_bytes in zip(sequence.path, record.nbytes, record.file_bytes, strict=True):
            block.nbytes, block.file_bytes = nbytes, file_bytes
        self.by_key[record.key] = sequence
        self.levels.adopt(sequence, path.stat().st_size)
        self.touch(sequence)


def _use(sequence: StoredSequence) -> int:
    return sequence.used
