"""How a model with dynamic pooling splits into stages: a tower each, `pre`, `middle` and `post`.

Where the data decides, `middle` has a clock, and firing 0, before there is any token, is the row of no group: firing f + 1
reads the span of rows that boundary f closes, and `post` the newest of its rows. Where groups close every k tokens, from token
0 on, firing f is that of token k * f, as an Hourglass has it; the row of no group is then a constant that no token ever sees
but by its keys and values.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...contract import ClockSpec, InputSpec, StageSpec
from ..architecture import Stage, count_parameters
from ..cache import State
from ..layers.relative_attention import with_tables
from ..spans import Spans
from .boundaries import THRESHOLD, BoundaryPredictor
from .config import DynamicPoolingConfig
from .tower import CoarseTower, FirstRow, Tower

PRE, MIDDLE, POST = "pre", "middle", "post"


class PreStage(nn.Module):
    """Token ids to rows; their last column is the probability of a boundary, where it is predicted."""

    def __init__(self, embed: nn.Embedding, tower: Tower, predictor: BoundaryPredictor | None) -> None:
        super().__init__()
        self.embed, self.tower, self.predictor = embed, tower, predictor

    def forward(self, inputs: Sequence[Tensor], state: State, logit_rows: Tensor | None = None) -> Tensor:
        """As `StageModule`."""
        x: Tensor = self.tower(self.embed(inputs[0]), state)
        return x if self.predictor is None else torch.cat((x, self.predictor(x)), -1)


class SpanStage(nn.Module):
    """Firings of the coarse tower that the data decides; the first one is that of no group."""

    def __init__(self, middle: CoarseTower) -> None:
        super().__init__()
        self.null, self.norm, self.tower = middle.null, middle.norm, middle.tower

    def forward(self, inputs: Sequence[Spans], state: State, logit_rows: Tensor | None = None) -> Tensor:
        """As `StageModule`; the input are the rows of each group."""
        means = inputs[0].mean()[:, :, : self.null.shape[-1]]
        is_first = state.positions(means.shape[1])[:, :, None] == 0
        y: Tensor = self.tower(self.norm(torch.where(is_first, self.null, means)), state)
        return y


class WindowStage(nn.Module):
    """Firings of the coarse tower every `stride` tokens, each of them handed to as many."""

    def __init__(self, middle: CoarseTower, stride: int) -> None:
        super().__init__()
        self.norm, self.tower, self.stride = middle.norm, middle.tower, stride
        with torch.no_grad():
            self.first_row = FirstRow(middle.tower, middle.norm(middle.null))

    def forward(self, inputs: Sequence[Tensor], state: State, logit_rows: Tensor | None = None) -> Tensor:
        """As `StageModule`; the input are windows, of which the first has but one row that is there."""
        batch, rows, dim = inputs[0].shape
        sums = inputs[0].reshape(batch, rows // self.stride, self.stride, dim).sum(2)
        is_first = state.positions(sums.shape[1])[:, :, None] == 0
        x = self.norm(torch.where(is_first, sums, sums / self.stride))
        y: Tensor = self.tower(x, self.first_row.before(state))
        return y[:, :, None].expand(-1, -1, self.stride, -1).reshape(batch, rows, dim)


class PostStage(nn.Module):
    """The first tower's rows and those of the newest groups to logits."""

    def __init__(self, tower: Tower, head: nn.Linear) -> None:
        super().__init__()
        self.tower, self.head = tower, head

    def forward(self, inputs: Sequence[Tensor], state: State, logit_rows: Tensor | None = None) -> Tensor:
        """As `StageModule`."""
        stream, context = inputs
        x = self.tower(stream[:, :, : context.shape[-1]] + context, state)
        y: Tensor = self.head(x if logit_rows is None else x.index_select(1, logit_rows))
        return y


class VanillaStage(nn.Module):
    """The only stage of a model without groups."""

    def __init__(self, embed: nn.Embedding, tower: Tower, head: nn.Linear) -> None:
        super().__init__()
        self.embed, self.tower, self.head = embed, tower, head

    def forward(self, inputs: Sequence[Tensor], state: State, logit_rows: Tensor | None = None) -> Tensor:
        """As `StageModule`."""
        x = self.tower(self.embed(inputs[0]), state)
        y: Tensor = self.head(x if logit_rows is None else x.index_select(1, logit_rows))
        return y


def split(config: DynamicPoolingConfig, pre: PreStage, middle: CoarseTower | None, post: PostStage) -> list[Stage]:
    """Cut a model into stages that share its weights; a vanilla one, which has nothing in the middle, is one stage."""
    tokens = (InputSpec(kind="tokens"),)
    if middle is None:
        return [_stage(config, "1", tokens, VanillaStage(pre.embed, pre.tower, post.head), config.vocab_size)]
    width = config.dim + config.is_predicted
    merged = (
        InputSpec(kind="stream", source=PRE, width=width),
        InputSpec(kind="context", source=MIDDLE, width=config.dim, reads="stride" if config.stride else "newest"),
    )
    return [
        _stage(config, PRE, tokens, pre, width),
        _windows(config, middle, config.stride) if config.stride else _spans(config, middle, width),
        _stage(config, POST, merged, post, config.vocab_size),
    ]


def _spans(config: DynamicPoolingConfig, middle: CoarseTower, width: int) -> Stage:
    spans = (InputSpec(kind="window", source=PRE, width=width, reads="span"),)
    return _stage(config, MIDDLE, spans, SpanStage(middle), config.dim, clock=clock_of(config))


def _windows(config: DynamicPoolingConfig, middle: CoarseTower, stride: int) -> Stage:
    window = (InputSpec(kind="window", source=PRE, count=stride, shift=stride - 1, width=config.dim),)
    return _stage(config, MIDDLE, window, WindowStage(middle, stride), config.dim, stride=stride)


def clock_of(config: DynamicPoolingConfig) -> ClockSpec:
    """What decides that a group closes."""
    if config.is_predicted:
        return ClockSpec(stage=PRE, threshold=THRESHOLD, tokens_per_firing=config.tokens_per_firing)
    return ClockSpec(ids=config.ids, tokens_per_firing=config.tokens_per_firing)


def _stage(
    config: DynamicPoolingConfig,
    name: str,
    inputs: tuple[InputSpec, ...],
    module: PreStage | SpanStage | WindowStage | PostStage | VanillaStage,
    width: int,
    stride: int = 1,
    clock: ClockSpec | None = None,
) -> Stage:
    """A stage whose attention is tabled for all rows that a context can have, that of no group included."""
    caches, is_coarse = module.tower.caches(), isinstance(module, (SpanStage, WindowStage))
    tabled = with_tables(module, -(-config.context // stride) + is_coarse)
    spec = StageSpec(
        name=name,
        stride=stride,
        fires="ahead" if clock else "open",
        inputs=inputs,
        output="logits" if isinstance(module, (PostStage, VanillaStage)) else "hidden",
        output_rows=stride,
        width=width,
        layers=len(module.tower.layers),
        caches=caches,
        parameters=count_parameters(tabled),
        uses_position=bool(caches) or is_coarse,
        clock=clock,
    )
    return Stage(spec, tabled)
