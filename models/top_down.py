"""The top-down multi-scale language model, in the manner of arXiv 2005.00581: coarse first, complete groups only.

The paper's text could not be had, so this is our definition of what its abstract and others describe. A scale of stride k sees
one vector per group of k tokens, the pooled embeddings of that group, plus what the next coarser scale makes of everything
before the coarser group that this one lies in. So no coarse scale is ever waited for: what the group that ends with token t
gives is first read with token t + 1.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..contract import InputSpec
from .architecture import Description, Stage
from .config import ModelConfig
from .describe import describe
from .layers.embed import Embed
from .layers.head import head_for
from .layers.initialise import initialise
from .layers.lengthen import Lengthen
from .layers.shorten import Shorten
from .layers.stack import Stack
from .layers.stack_stage import StackStage, stack_stage


class HandDown(nn.Module):
    """What a coarse scale gives to the next finer one: `lengthen(W x)`, k rows for each of its own.

    There is no norm: rows of unit variance would drown the embeddings they are added to, whose variance is a thousandth of that
    when training begins, and the model never learns to look at its own tokens (tried).
    """

    def __init__(self, config: ModelConfig, factor: int) -> None:
        super().__init__()
        self.out = nn.Linear(config.dim, config.dim, bias=False)
        self.lengthen = Lengthen(config, factor)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, n, D]` -> `[B, n * k, D]`."""
        y: Tensor = self.lengthen(self.out(x))
        return y


class Enter(nn.Module):
    """What a scale reads: its own rows, shortened, plus the context that a coarser scale hands down, if there is one."""

    def __init__(self, shorten: nn.Module) -> None:
        super().__init__()
        self.shorten = shorten

    def forward(self, rows: Tensor, context: Tensor | None = None) -> Tensor:
        """Rows `[B, n * k, D]`, context `[B, n, D]` -> `[B, n, D]`."""
        x: Tensor = self.shorten(rows)
        return x if context is None else x + context


class CoarseScale(nn.Module):
    """Layers over groups of `stride` tokens, which hand `factor` rows per group down to the next finer scale."""

    def __init__(self, config: ModelConfig, layers: int, stride: int, factor: int) -> None:
        super().__init__()
        self.stride, self.factor = stride, factor
        self.shorten = Shorten(config, stride)
        self.stack = Stack(config.layer, layers)
        self.hand_down = HandDown(config, factor)

    def forward(self, embedded: Tensor, context: Tensor | None) -> Tensor:
        """Embeddings `[B, L, D]` and the coarser scale's rows (None: this is the coarsest) -> rows for the finer scale.

        The rows begin with `factor` zero rows: the tokens of the first group have nothing coarser behind them.
        """
        groups = embedded.shape[1] // self.stride  # complete ones
        if groups == 0:
            return embedded.new_zeros(embedded.shape[0], self.factor, embedded.shape[2])
        x = self.shorten(embedded[:, : groups * self.stride])
        if context is not None:
            x = x + context[:, :groups]
        return F.pad(self.hand_down(self.stack(x)), (0, 0, self.factor, 0))


class TopDown(nn.Module):
    """Token ids to next-token logits; `logits[t]` predicts token t+1. Hierarchies go from coarse to fine: `"4@16 3@4 4@1"`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        levels = config.levels.levels
        self.embed = Embed(config)
        self.coarse = nn.ModuleList(
            CoarseScale(config, level.layers, level.stride, level.stride // finer.stride)
            for level, finer in itertools.pairwise(levels)
        )
        self.fine = Stack(config.layer, levels[-1].layers)
        self.head = head_for(config, self.embed)
        initialise(self, config.levels.depth)

    @property
    def coarse_scales(self) -> list[CoarseScale]:
        """Coarsest first."""
        return [scale for scale in self.coarse if isinstance(scale, CoarseScale)]

    def describe(self) -> Description:
        """As `Architecture.describe`."""
        return describe(self.config)

    def stages(self) -> list[Stage]:
        """As `Architecture.stages`: the embedding, and one stage per scale, named after its stride, coarse first.

        A coarse stage fires when a group is complete and reads the embeddings of that group; in the step of its last token
        nothing waits for it, so it may run beside the finer ones.
        """
        config = self.config
        width = config.dim
        embed = StackStage(self.embed, Stack(config.layer, 0), nn.Identity())
        found = [stack_stage("embed", 1, (InputSpec(kind="tokens"),), embed, width)]
        context: tuple[InputSpec, ...] = ()
        for scale in self.coarse_scales:
            window = InputSpec(kind="window", source="embed", count=scale.stride, width=width)
            module = StackStage(Enter(scale.shorten), scale.stack, scale.hand_down)
            stage = stack_stage(
                str(scale.stride), scale.stride, (window, *context), module, width, output_rows=scale.factor, fires="close"
            )
            found.append(stage)
            context = (InputSpec(kind="context", source=stage.spec.name, shift=scale.factor, width=width),)
        stream = InputSpec(kind="stream", source="embed", width=width)
        fine = StackStage(Enter(nn.Identity()), self.fine, self.head)
        return [*found, stack_stage("1", 1, (stream, *context), fine, config.vocab_size)]

    def forward(self, ids: Tensor) -> Tensor:
        """Ids `[B, L]`, int64 -> logits `[B, L, V]`, all at once, no state."""
        length = ids.shape[1]
        embedded = self.embed(ids, torch.arange(length, device=ids.device)[None])
        context = None
        for scale in self.coarse_scales:
            context = scale(embedded, context)
        x = embedded if context is None else embedded + context[:, :length]
        y: Tensor = self.head(self.fine(x))
        return y
