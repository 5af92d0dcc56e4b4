"""What a store of sessions says of itself."""

from __future__ import annotations

from dataclasses import dataclass


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
