"""Sequences as paths in a tree of blocks of tokens, so that what many of them begin with is there once.

A block is what up to `BLOCK_TOKENS` tokens have written, behind all those of its parents: equal tokens behind equal tokens are
the same block, and only a full one has children. State that can't be taken apart is a block by itself, however long, under a
root of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from ..decoder import Written
from ..rows import Ids

BLOCK_TOKENS = 64
"""Any number will do, as state can be cut behind any token. With a larger one more of what two sequences share is behind their
last common block; with a smaller one there are more and smaller copies, and files."""


@dataclass(eq=False)
class StoredSequence:
    """A sequence that is kept.

    Attributes:
        key: whose.
        path: its blocks, in order.
        batch: sequences that move in step.
        reached: how far they had gone before they were rewound.
        salt: of the root of its own under which its one block is; empty: its blocks may be others' too.
        used: the higher, the later.
    """

    key: str
    path: list[Block]
    batch: int
    reached: int
    salt: str
    used: int = 0

    @property
    def position(self) -> int:
        """Tokens of each of its sequences."""
        return self.path[-1].stop

    @property
    def tokens(self) -> Ids:
        """The ids `[B, position]`."""
        ids = b"".join(block.ids for block in self.path)
        return np.frombuffer(ids, np.int64).reshape(self.batch, self.position).copy()

    @property
    def nbytes(self) -> int:
        """Bytes of all its blocks in memory."""
        return sum(block.nbytes for block in self.path)


@dataclass(eq=False)
class Block:
    """A run `[start, stop)` of tokens, and what they wrote.

    Attributes:
        name: a hash of its tokens, of all before them, and of what the state is of, so the same in any process.
        ids: of its tokens, as bytes.
        holders: the sequences that go through it.
        nbytes, file_bytes: of what they wrote, and of its file; 0: there is none.
        written: what they wrote, where it is in memory.
        in_memory, in_files: how many of the holders keep it there.
    """

    name: str
    parent: Block | None
    ids: bytes
    start: int
    stop: int
    children: dict[bytes, Block] = field(default_factory=dict)
    holders: set[StoredSequence] = field(default_factory=set)
    nbytes: int = 0
    file_bytes: int = 0
    written: Written | None = None
    in_memory: int = 0
    in_files: int = 0

    @property
    def tokens(self) -> int:
        """How many it has, of each sequence of a batch."""
        return self.stop - self.start


class BlockTree:
    """All blocks that some sequence holds. `identity` is what their state is of."""

    def __init__(self, identity: str) -> None:
        self._identity = identity
        self.root = self._root("")
        self._own: set[StoredSequence] = set()

    def _root(self, salt: str) -> Block:
        return Block(hashlib.sha256(repr((self._identity, salt)).encode()).hexdigest(), None, b"", 0, 0)

    def hold(self, key: str, ids: Ids, reached: int, salt: str) -> StoredSequence:
        """Let a new sequence of ids `[B, T]` hold its blocks, some of which others may hold already."""
        sequence = StoredSequence(key, [], ids.shape[0], reached, salt)
        tokens = max(ids.shape[1], 1)  # one of no tokens has a block as well: what stands in front of the first
        block, step = (self._root(salt), tokens) if salt else (self.root, BLOCK_TOKENS)
        if salt:
            self._own.add(sequence)
        for start in range(0, tokens, step):
            block = _child(block, ids[:, start : start + step])
            block.holders.add(sequence)
            sequence.path.append(block)
        return sequence

    def release(self, sequence: StoredSequence) -> None:
        """Let go of a sequence's blocks; those that nobody holds are in the tree no more."""
        self._own.discard(sequence)
        for block in reversed(sequence.path):
            block.holders.discard(sequence)
            if not block.holders and block.parent is not None:
                block.parent.children.pop(block.ids, None)

    def longest(self, ids: Ids) -> tuple[list[Block], int]:
        """The blocks that begin as ids `[T]` do, the last one perhaps in part, and how many tokens that is."""
        path: list[Block] = []
        block, tokens, common = self.root, 0, BLOCK_TOKENS
        while common == BLOCK_TOKENS and block.children:
            block, common = _nearest(block, ids[tokens:])
            if common:
                path.append(block)
                tokens += common
        return path, tokens

    def own(self, ids: Ids) -> Iterator[tuple[StoredSequence, int]]:
        """Sequences of one that share no blocks, and how many tokens each has in common with ids `[T]`."""
        for sequence in self._own:
            if sequence.batch == 1:
                yield sequence, _common(ids, sequence.path[0])


def _child(parent: Block, ids: Ids) -> Block:
    """The block of ids `[B, T]` behind another, made if there is none."""
    own = ids.tobytes()
    if own not in parent.children:
        name = hashlib.sha256(parent.name.encode() + own).hexdigest()
        parent.children[own] = Block(name, parent, own, parent.stop, parent.stop + ids.shape[1])
    return parent.children[own]


def _nearest(parent: Block, ids: Ids) -> tuple[Block, int]:
    """The child that has most tokens in common with ids `[T]`, and how many."""
    whole = parent.children.get(ids[:BLOCK_TOKENS].tobytes())
    if whole is not None:
        return whole, whole.tokens
    counted = ((child, _common(ids, child)) for child in parent.children.values())
    return max(counted, key=lambda found: found[1])


def _common(ids: Ids, block: Block) -> int:
    """How many of the first ids `[T]` are those of a block of one sequence."""
    own = np.frombuffer(block.ids, np.int64)
    length = min(len(own), len(ids))
    differ = np.flatnonzero(own[:length] != ids[:length])
    return int(differ[0]) if len(differ) else length
