"""A stage computed by PyTorch behind the runtime's engine protocol: the reference every engine is compared with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ...contract import StageSpec
from ...models.architecture import Stage, time_major
from ...models.cache import StageState
from ...models.spans import read_inputs
from ...runtime.rows import Array, Block


class TorchEngine:
    """Eager PyTorch, fp32, the caches in memory that numpy shares."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    @property
    def spec(self) -> StageSpec:
        """The stage's place in the dataflow."""
        return self.stage.spec

    def bind(self, batch: int, firings: int) -> TorchStage:
        """Allocate zeroed caches."""
        return TorchStage(self.stage, batch, firings)


class TorchStage:
    """A `TorchEngine` with its caches."""

    copied_bytes = 0

    def __init__(self, stage: Stage, batch: int, firings: int) -> None:
        self._stage = stage
        self._state = StageState(stage.spec, batch, firings)
        self.caches: Sequence[Array] = [tensor.numpy() for tensor in self._state.tensors.values()]

    def borrow(self, caches: Sequence[Array]) -> None:
        """As `BoundStage.borrow`."""
        lent = zip(self._stage.spec.borrows, caches, strict=True)
        self._state.lend({given.name: torch.from_numpy(cache) for given, cache in lent})

    @torch.no_grad()
    def run(self, first: int, firings: int, inputs: Sequence[Block], output: Block, logit_rows: Block | None) -> None:
        """As `BoundStage.run`."""
        self._state.begin(first)
        given = read_inputs(self._stage.spec, iter([torch.from_numpy(block.array) for block in inputs]))
        wanted = None if logit_rows is None else torch.from_numpy(logit_rows.array)
        result = self._stage.module(given, self._state, wanted)
        np.copyto(output.array, (result if logit_rows is not None else time_major(result)).numpy())
