"""What a model must offer to become a bundle: a description, its stages, and a full forward to be held to.

Any `nn.Module` with these three methods can be converted (`convert_model`), foveal's own and yours alike:
docs/your-own-model.md goes through an example. Nothing else in foveal asks what family a model is of.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..contract import EndRule, StageSpec
from .cache import State


@dataclass(frozen=True)
class Description:
    """A model in a few words.

    Attributes:
        architecture: its family, for people: `"hourglass"`, `"megabyte"`.
        hierarchy: layers and strides of its stacks in dataflow order, `"2@1 8@4 2@1"` (`foveal.hierarchy`).
        vocab_size: number of token ids.
        dim: width at token scale.
        max_positions: the most tokens it can see; None where positions are relative.
        context: tokens that a session has room for, unless asked otherwise: those it was trained on.
        end_rules: where its sequences end by their own ids, for who asks for these ends by name.
    """

    architecture: str
    hierarchy: str
    vocab_size: int
    dim: int
    max_positions: int | None
    context: int
    end_rules: tuple[EndRule, ...] = ()


class StageModule(Protocol):
    """What a stage computes: an `nn.Module` called like this."""

    def __call__(self, inputs: Sequence[Any], state: State, logit_rows: Tensor | None = None) -> Tensor:
        """Run L firings.

        Args:
            inputs: in the order of the stage's specification: token ids `[B, count * L]`, rows `[B, count * L, width]`, or of
                spans of unknown length a `Spans` (`models.spans`).
            state: the caches of the stage.
            logit_rows: of the stage that gives logits, which of the L firings to give them for, int64 `[N]`; None: all.

        Returns:
            Rows `[B, output_rows * L, width]` or logits `[B, N, V]`.
        """
        ...

    def modules(self) -> Iterator[nn.Module]: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...


@dataclass(frozen=True)
class Stage:
    """A stage's place in the dataflow and its computation."""

    spec: StageSpec
    module: nn.Module


class Architecture(Protocol):
    """A hierarchical language model: an `nn.Module` that can be cut into stages."""

    def describe(self) -> Description:
        """What it is."""
        ...

    def stages(self) -> Sequence[Stage]:
        """Its stages in dataflow order, which share its weights; the last gives logits, at stride 1."""
        ...

    def __call__(self, ids: Tensor) -> Tensor:
        """Ids `[B, L]`, int64 -> logits `[B, L, V]`, all at once, no state; row t predicts token t+1."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]: ...


def count_parameters(module: nn.Module) -> int:
    """Numbers in its weights; one that is used twice counts once."""
    return sum(parameter.numel() for parameter in module.parameters())


def time_major(rows: Tensor) -> Tensor:
    """`[B, L, D]` <-> `[L, B, D]`: the layout of rows between stages (docs/adr/0002)."""
    return torch.transpose(rows, 0, 1)
