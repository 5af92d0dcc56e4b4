"""The bottom-up multi-scale language model, in the manner of arXiv 2005.00581: fine first, then coarser and coarser, then back.

The paper's text could not be had, so this is our definition of what its abstract and others describe: layers at token scale,
whose rows are pooled into those of a coarser scale, which has layers of its own, and so on; then an aggregation, in which each
token attends to its own row and to the newest one of every scale; and at last more layers at token scale.

As in an Hourglass, a scale fires with the token that opens a group, on the previous k-1 rows of the finer scale and the newest,
which are there by then: groups are shifted by k-1. Unlike there, rows of all scales reach the tokens directly.

A coarse row is read twice: once by the next coarser scale, and by each of the tokens that it serves. What a stage gives is
addressed by one rule, so a coarse stage gives its row once for every token; the next scale reads whole groups of such copies
and keeps one of each. The other way, a further stage per scale that only repeats rows, costs as much memory and an engine call.
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
from .layers.aggregate import Aggregate
from .layers.embed import Embed
from .layers.head import head_for
from .layers.initialise import initialise
from .layers.lengthen import Lengthen
from .layers.shorten import Shorten
from .layers.stack import Stack
from .layers.stack_stage import StackStage, stack_stage


class ShortenCopies(nn.Module):
    """Shortening of rows of which there are several copies, one after the other."""

    def __init__(self, copies: int, shorten: Shorten) -> None:
        super().__init__()
        self.copies, self.shorten = copies, shorten

    def forward(self, x: Tensor) -> Tensor:
        """`[B, n * k * copies, D]` -> `[B, n, D]`."""
        batch, rows, dim = x.shape
        y: Tensor = self.shorten(x.view(batch, rows // self.copies, self.copies, dim)[:, :, 0])
        return y


class BottomUpScale(nn.Module):
    """Layers over groups of `factor` rows of the next finer scale, and a copy of what they give for each of `stride` tokens."""

    def __init__(self, config: ModelConfig, layers: int, stride: int, factor: int) -> None:
        super().__init__()
        self.stride, self.factor = stride, factor
        self.shorten = Shorten(config, factor)
        self.stack = Stack(config.layer, layers)
        self.repeat = Lengthen(config, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Rows of the finer scale `[B, n, D]` -> `[B, ceil(n / factor), D]`; group i ends with row i * factor."""
        groups = -(-x.shape[1] // self.factor)
        shifted = F.pad(x, (0, 0, self.factor - 1, 0))[:, : groups * self.factor]
        y: Tensor = self.stack(self.shorten(shifted))
        return y


class BottomUp(nn.Module):
    """Token ids to next-token logits; `logits[t]` predicts token t+1. A hierarchy goes up and back: `"2@1 2@4 2@16 2@1"`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        first, *coarse, last = config.levels.levels
        self.embed = Embed(config)
        self.pre = Stack(config.layer, first.layers)
        self.coarse = nn.ModuleList(
            BottomUpScale(config, level.layers, level.stride, level.stride // finer.stride)
            for finer, level in itertools.pairwise((first, *coarse))
        )
        self.aggregate = Aggregate(config, 1 + len(coarse))
        self.post = Stack(config.layer, last.layers)
        self.head = head_for(config, self.embed)
        initialise(self, config.levels.depth)

    def describe(self) -> Description:
        """As `Architecture.describe`."""
        return describe(self.config)

    def stages(self) -> list[Stage]:
        """As `Architecture.stages`: `1.pre`, one stage per coarser scale, named after its stride, and `1.post`."""
        config = self.config
        width = config.dim
        pre = StackStage(self.embed, self.pre, nn.Identity())
        found = [stack_stage("1.pre", 1, (InputSpec(kind="tokens"),), pre, width)]
        copies = 1  # of each row that the stage found last gives
        for scale in self._scales():
            source, stride = found[-1].spec.name, scale.stride
            window = InputSpec(kind="window", source=source, count=stride, shift=stride - copies, width=width)
            module = StackStage(ShortenCopies(copies, scale.shorten), scale.stack, scale.repeat)
            found.append(stack_stage(str(stride), stride, (window,), module, width, output_rows=stride))
            copies = stride
        stream = InputSpec(kind="stream", source="1.pre", width=width)
        context = (InputSpec(kind="context", source=str(scale.stride), width=width) for scale in self._scales())
        post = StackStage(self.aggregate, self.post, self.head)
        return [*found, stack_stage("1.post", 1, (stream, *context), post, config.vocab_size)]

    def forward(self, ids: Tensor) -> Tensor:
        """Ids `[B, L]`, int64 -> logits `[B, L, V]`, all at once, no state."""
        length = ids.shape[1]
        rows = fine = self.pre(self.embed(ids, torch.arange(length, device=ids.device)[None]))
        seen = []
        for scale in self._scales():
            rows = scale(rows)
            seen.append(scale.repeat(rows)[:, :length])
        y: Tensor = self.head(self.post(self.aggregate(fine, *seen)))
        return y

    def _scales(self) -> list[BottomUpScale]:
        return [scale for scale in self.coarse if isinstance(scale, BottomUpScale)]
