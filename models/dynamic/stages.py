"""The stages of a model that decides where its middle fires: `pre`, `middle`, `post`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from ...contract import ClockSpec, Fires, InputSpec, StageSpec
from ..architecture import Stage, count_parameters
from ..cache import State
from ..config import ModelConfig
from ..layers.embed import Embed
from ..layers.head import Head
from ..layers.stack import Stack
from ..spans import Spans
from .predictor import BoundaryPredictor


class Pre(nn.Module):
    """The first tower: rows of width D + 1, the last column the boundary logit."""

    def __init__(self, embed: Embed, stack: Stack, predictor: BoundaryPredictor) -> None:
        super().__init__()
        self.embed, self.stack, self.predictor = embed, stack, predictor

    def forward(self, inputs: Sequence[Tensor], state: State, logit_rows: Tensor | None = None) -> Tensor:
        """As `StageModule`."""
        rows = self.stack.step(self.embed(inputs[0], state.positions(inputs[0].shape[1])), state)
        return torch.cat((rows, self.predictor(rows)), -1)


class Middle(nn.Module):
    """The middle tower, on the mean of each span; its first row, before there is any token, is a learned one."""

    def __init__(self, stack: Stack, null: nn.Parameter) -> None:
        super().__init__()
        self.stack, self.null = stack, null

    def forward(self, inputs: Sequence[Spans], state: State, logit_rows: Tensor | None = None) -> Tensor:
        """As `StageModule`."""
        means = inputs[0].mean()[:, :, :-1]  # without the boundary logit
        is_first = state.positions(means.shape[1]) == 0
        return self.stack.step(torch.where(is_first[:, :, None], self.null, means), state)


class Post(nn.Module):
    """The last tower and the head, on the first tower's rows and the newest of the middle's."""

    def __init__(self, stack: Stack, head: Head) -> None:
        super().__init__()
        self.stack, self.head = stack, head

    def forward(self, inputs: Sequence[Tensor], state: State, logit_rows: Tensor | None = None) -> Tensor:
        """As `StageModule`."""
        stream, context = inputs
        x = self.stack.step(stream[:, :, :-1] + context, state)
        if logit_rows is not None:
            x = x.index_select(1, logit_rows)
        y: Tensor = self.head(x)
        return y


class Parts(Protocol):
    """What a model is made of."""

    config: ModelConfig
    tokens_per_firing: float
    embed: Embed
    pre: Stack
    predictor: BoundaryPredictor
    middle: Stack
    null: nn.Parameter
    post: Stack
    head: Head


def dynamic_stages(model: Parts) -> list[Stage]:
    """The stages of a model, which share its weights."""
    dim, row = model.config.dim, model.config.dim + 1
    clock = ClockSpec(stage="pre", tokens_per_firing=model.tokens_per_firing)
    spans = InputSpec(kind="window", source="pre", width=row, reads="span")
    stream = InputSpec(kind="stream", source="pre", width=row)
    context = InputSpec(kind="context", source="middle", width=dim, reads="newest")
    pre = Pre(model.embed, model.pre, model.predictor)
    middle, post = Middle(model.middle, model.null), Post(model.post, model.head)
    return [
        _stage("pre", pre, model.pre, (InputSpec(kind="tokens"),), row),
        _stage("middle", middle, model.middle, (spans,), dim, clock, "ahead"),
        _stage("post", post, model.post, (stream, context), model.config.vocab_size, is_last=True),
    ]


def _stage(
    name: str,
    module: nn.Module,
    stack: Stack,
    inputs: tuple[InputSpec, ...],
    width: int,
    clock: ClockSpec | None = None,
    fires: Fires = "open",
    is_last: bool = False,
) -> Stage:
    spec = StageSpec(
        name=name,
        stride=1,
        fires=fires,
        clock=clock,
        inputs=inputs,
        output="logits" if is_last else "hidden",
        width=width,
        layers=len(stack.layers),
        caches=stack.caches(),
        parameters=count_parameters(module),
    )
    return Stage(spec, module)
