"""Where the blocks of stored sequences are: in memory, in files, or both, each within a budget.

Sequences come and go as a whole. A block is in memory as long as a sequence that goes through it is, and has a file as long as
one that was written does: what several share takes room once on either level, and goes with the last of them.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable

from ...errors import StorageError
from ..decoder import Written
from .blocks import Block, StoredSequence
from .store_folder import StoreFolder, block_file_bytes, record_file_bytes

Source = Callable[[Block], Written]
"""What a block wrote that is not in memory; the level's own."""

_log = logging.getLogger("foveal")


class Levels:
    """Memory and files of a store.

    Args:
        memory_bytes: the most in memory.
        disk_bytes: the most in files; None: any.
        folder: the files; None: there are none.
        arrays: that each block's state is in.
        drop: called with a sequence that found no room on either level, and is to be forgotten.

    Attributes:
        memory, disk: bytes taken.
        spills: sequences that went to files to make room in memory.
        resident, filed: the sequences that are wholly in memory, and in files with the size of each one's own; those used least
            recently come first.
    """

    def __init__(
        self,
        memory_bytes: int,
        disk_bytes: int | None,
        folder: StoreFolder | None,
        arrays: int,
        drop: Callable[[StoredSequence], None],
    ) -> None:
        self._most_memory, self._most_disk, self._folder, self._drop = memory_bytes, disk_bytes, folder, drop
        self._arrays, self._wanted = arrays, None  # type: int, StoredSequence | None
        self.memory = self.disk = self.spills = 0
        self.resident: OrderedDict[StoredSequence, None] = OrderedDict()
        self.filed: OrderedDict[StoredSequence, int] = OrderedDict()

    def fits_memory(self, sequence: StoredSequence) -> bool:
        """Whether there is room for a sequence in memory if nothing else is there."""
        return sequence.nbytes <= self._most_memory

    def fits_disk(self, sequence: StoredSequence) -> bool:
        """Whether there is room for its files if there are no others."""
        if self._folder is None or self._most_disk is None:
            return self._folder is not None
        return sum(map(self._file_bytes, sequence.path)) + record_file_bytes(sequence) <= self._most_disk

    def touch(self, sequence: StoredSequence) -> None:
        """A sequence was used."""
        for level in (self.resident, self.filed):
            if sequence in level:
                level.move_to_end(sequence)

    def admit(self, sequence: StoredSequence, source: Source) -> None:
        """Bring a sequence that fits into memory; others make room, on disk too, but its own files stay.

        Raises:
            Whatever the source raises, and StorageError where another can't be written: the sequence is where it was.
        """
        for block in sequence.path:
            block.in_memory += 1
        self._wanted = sequence
        try:
            missing = [block for block in sequence.path if block.written is None]
            self._make_room(sum(block.nbytes for block in missing))
            for block in missing:
                block.written = source(block)
                self.memory += block.nbytes
        except BaseException:
            self._let_go(sequence)
            raise
        finally:
            self._wanted = None
        self.resident[sequence] = None

    def write(self, sequence: StoredSequence, source: Source) -> bool:
        """Write a sequence; others make room. Whether there was enough.

        Raises:
            StorageError: the disk refuses; the sequence is where it was, and none of it on disk.
        """
        if self._folder is None or not self.fits_disk(sequence):
            return False
        for block in sequence.path:
            block.in_files += 1
        try:
            size = self._write(sequence, source, self._folder)
        except BaseException:
            self._remove_blocks(sequence)
            raise
        if size is None:
            self._remove_blocks(sequence)
            return False
        self.filed[sequence] = size
        self.disk += size
        return True

    def _write(self, sequence: StoredSequence, source: Source, folder: StoreFolder) -> int | None:
        """The size of its own file; None: there is not enough room."""
        for block in sequence.path:
            if not block.file_bytes:
                if not self._make_room_on_disk(self._file_bytes(block)):
                    return None
                block.file_bytes = folder.write_block(block.name, source(block))
                self.disk += block.file_bytes
        if not self._make_room_on_disk(record_file_bytes(sequence)):
            return None
        return folder.write_record(sequence)

    def adopt(self, sequence: StoredSequence, record_bytes: int) -> None:
        """A sequence whose files were found."""
        for block in sequence.path:
            self.disk += 0 if block.in_files else block.file_bytes
            block.in_files += 1
        self.filed[sequence] = record_bytes
        self.disk += record_bytes

    def flush(self) -> None:
        """Write what is in memory alone, as far as there is room, those used last last; in memory it stays."""
        for sequence in list(self.resident):
            if sequence not in self.filed:
                self.write(sequence, in_memory)
            self.touch(sequence)

    def trim(self) -> None:
        """Drop what exceeds the budget of files."""
        self._make_room_on_disk(0)

    def forget(self, sequence: StoredSequence, is_replaced: bool = False) -> None:
        """A sequence is no more; where it is replaced the file of its key is another's already.

        Raises:
            StorageError: the disk does not let its file be removed; it is still there.
        """
        if sequence in self.filed:
            self._remove_files(sequence, is_replaced)
        if sequence in self.resident:
            del self.resident[sequence]
            self._let_go(sequence)

    def _file_bytes(self, block: Block) -> int:
        return block.file_bytes or block_file_bytes(block, self._arrays)

    def _make_room(self, nbytes: int) -> None:
        while self.memory + nbytes > self._most_memory and self.resident:
            self._move_out(next(iter(self.resident)))

    def _move_out(self, sequence: StoredSequence) -> None:
        """Of memory: to files, or for good."""
        if sequence not in self.filed and not self.write(sequence, in_memory):
            self._drop(sequence)
            return
        del self.resident[sequence]
        self._let_go(sequence)
        self.spills += 1

    def _let_go(self, sequence: StoredSequence) -> None:
        for block in sequence.path:
            block.in_memory -= 1
            if not block.in_memory and block.written is not None:
                block.written = None
                self.memory -= block.nbytes

    def _make_room_on_disk(self, nbytes: int) -> bool:
        while self._most_disk is not None and self.disk + nbytes > self._most_disk:
            spare = next((one for one in self.resident if one in self.filed and one is not self._wanted), None)
            if spare is not None:  # nothing is lost with its files
                self._remove_files(spare)
                continue
            oldest = next((one for one in self.filed if one is not self._wanted), None)
            if oldest is None:
                return False
            self._drop(oldest)
        return True

    def _remove_files(self, sequence: StoredSequence, is_replaced: bool = False) -> None:
        if self._folder is not None and not is_replaced:
            self._folder.remove_record(sequence.key)
        self.disk -= self.filed.pop(sequence)
        self._remove_blocks(sequence)

    def _remove_blocks(self, sequence: StoredSequence) -> None:
        """Those that no other sequence needs. One that can't be removed is left to the next store, which removes it."""
        for block in sequence.path:
            block.in_files -= 1
            if not block.in_files and block.file_bytes:
                self.disk -= block.file_bytes
                block.file_bytes = 0
                self._remove_block(block.name)

    def _remove_block(self, name: str) -> None:
        try:
            if self._folder is not None:
                self._folder.remove_block(name)
        except StorageError as error:
            _log.warning("can't remove what a dropped sequence leaves: %s", error)


def in_memory(block: Block) -> Written:
    """Of a block that is there."""
    if block.written is None:
        raise TypeError("the block is not in memory")
    return block.written
