"""What the host tells resident engines in one call, and what it gets back: both at addresses that never change."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..contract import Limits, StageSpec
from .device import Buffer, Device, Region
from .engines.resident import Phase
from .rows import TokenLog

_INT64_BYTES, _FLOAT32_BYTES = 8, 4
_ALIGNMENT = 256 // _INT64_BYTES
"""In numbers: TensorRT takes no tensor whose address is not a multiple of 256 bytes (IExecutionContext::setTensorAddress)."""


class Frame:
    """Positions, wanted rows and token ids in one block, so that one copy brings all of them; and the logits.

    In order, int64, each aligned: the position of every stage `[B]`, how many numbers a sampler has drawn `[B]`, the wanted
    rows `[N]`, and for each stage that reads tokens its ids `[B, count * L]`, as many as its largest call takes.
    """

    def __init__(self, device: Device, specs: Sequence[StageSpec], phase: Phase, limits: Limits, vocab_size: int) -> None:
        self._device, self._specs, self._batch, self._vocab_size = device, specs, limits.batch, vocab_size
        tokens = 1 if phase == "decode" else limits.prefill
        self._end = 0
        self._positions_at = [self._reserve(limits.batch) for _ in (*specs, "draws")]
        self._wanted_at = self._reserve(tokens)
        self._ids_at = {
            spec.name: self._reserve(limits.batch * given.count * spec.most_firings(tokens))
            for spec in specs
            for given in spec.inputs
            if given.source is None
        }
        self._told = device.pinned((self._end,), np.int64)
        self._block = device.allocate(self._told.nbytes)
        self._answer = device.pinned((limits.batch * tokens * vocab_size,), np.float32)
        self._logits = device.allocate(self._answer.nbytes)

    def _reserve(self, numbers: int) -> int:
        """Where the next part of the block begins, for so many numbers."""
        start = self._end
        self._end += -(-numbers // _ALIGNMENT) * _ALIGNMENT
        return start

    def tensors(self, index: int) -> dict[str, Buffer]:
        """Where a stage finds what the host tells it, and leaves its logits; by the tensor's name."""
        spec = self._specs[index]
        found = {"position": self._part(self._positions_at[index])}
        if spec.name in self._ids_at:
            found["input_ids"] = self._part(self._ids_at[spec.name])
        if spec.output == "logits":
            found |= {"logit_rows": self._part(self._wanted_at), "logits": self._logits}
        return found

    def tell(self, firings: Sequence[range], tokens: TokenLog, wanted: npt.NDArray[np.int64]) -> None:
        """Write down what the next call needs: the firings of every stage (maybe none), in their order."""
        self._told[self._wanted_at : self._wanted_at + len(wanted)] = wanted
        for index, (spec, fired) in enumerate(zip(self._specs, firings, strict=True)):
            if not fired:
                continue
            first = self._positions_at[index]
            self._told[first : first + self._batch] = fired.start
            for given in spec.inputs:
                if given.source is None:
                    ids = tokens.rows(fired.start * given.count - given.shift, len(fired) * given.count).array
                    start = self._ids_at[spec.name]
                    self._told[start : start + ids.size] = ids.reshape(-1)

    def tell_ahead(self, position: int, ids: npt.NDArray[np.int64]) -> None:
        """Write down where every stage fires next at or after a position, and that nothing was drawn yet.

        `ids` `[B, 1]` take the place of the token log's, unless there are none `[B, 0]`.
        """
        (ids_at,) = self._ids_at.values()
        self._told[ids_at : ids_at + ids.size] = ids.reshape(-1)
        firsts = [*(spec.firings(position, 1).start for spec in self._specs), 0]
        for place, first in zip(self._positions_at, firsts, strict=True):
            self._told[place : place + self._batch] = first

    def upload(self) -> None:
        """Queue what was told."""
        nbytes = self._told.nbytes
        self._device.copy(Region(self._block.address, nbytes), Region(self._told.ctypes.data, nbytes))

    def download(self, wanted: int) -> None:
        """Queue the answer."""
        nbytes = self._batch * wanted * self._vocab_size * _FLOAT32_BYTES
        self._device.copy(Region(self._answer.ctypes.data, nbytes), Region(self._logits.address, nbytes))

    def logits(self, wanted: int) -> npt.NDArray[np.float32]:
        """The answer `[B, N, V]`, once the device is done; a view that the next call overwrites."""
        return self._answer[: self._batch * wanted * self._vocab_size].reshape(self._batch, wanted, self._vocab_size)

    @property
    def nbytes(self) -> int:
        """Of what is told."""
        return self._block.nbytes

    def drawn_tensors(self, following: Buffer) -> dict[str, Buffer]:
        """Where a sampler finds logits and positions, and leaves those of the next step in a block of the same layout."""
        found = {"logits": self._logits}
        for index, start in enumerate(self._positions_at):
            found |= {f"position_{index}": self._part(start), f"next_position_{index}": self._part(start, following)}
        (ids_at,) = self._ids_at.values()
        return {**found, "next_ids": self._part(ids_at, following)}

    def follow(self, following: Buffer) -> None:
        """Queue that what was left for the next step is told."""
        self._device.copy(Region(self._block.address, self.nbytes), Region(following.address, self.nbytes))

    def _part(self, start: int, block: Buffer | None = None) -> Buffer:
        offset = start * _INT64_BYTES
        return (block or self._block).at(offset, self.nbytes - offset)
