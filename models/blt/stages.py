"""The stages of a BLT: what ends patches, bytes, patches, and bytes again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from torch import Tensor, nn

from ...contract import ClockSpec, InputSpec, StageSpec
from ..architecture import Stage, count_parameters
from ..cache import State
from ..layers.stack import Stack
from ..layers.stack_stage import StackStage, stack_stage
from ..spans import Spans
from .boundaries import PATCHER, SPACES, SpaceRule
from .config import BltConfig
from .decoder import Decoder
from .hand_down import HandDown
from .hash_embed import HashEmbed
from .pool import Pool

ENCODER, MIDDLE, DECODER = "encoder", "global", "decoder"


class SpaceStage(nn.Module):
    """Whether a byte ends a word, from its id and the one before."""

    def __init__(self, rule: SpaceRule) -> None:
        super().__init__()
        self.rule = rule

    def forward(self, inputs: Sequence[Tensor], state: State, logit_rows: Tensor | None = None) -> Tensor:
        """As `StageModule`: the newest two ids `[B, 2 * L]` -> `[B, L, 1]`."""
        pairs = inputs[0].reshape(inputs[0].shape[0], -1, 2)
        found: Tensor = self.rule(pairs[:, :, 0], pairs[:, :, 1])
        return found[:, :, None]


class MiddleStage(nn.Module):
    """A patch's bytes to what bytes read of it: pooling, layers over patches, keys and values for the decoder."""

    def __init__(self, pool: Pool, entry: nn.Module, stack: Stack, hand_down: HandDown) -> None:
        super().__init__()
        self.pool, self.entry, self.stack, self.hand_down = pool, entry, stack, hand_down

    def forward(self, inputs: Sequence[Spans], state: State, logit_rows: Tensor | None = None) -> Tensor:
        """As `StageModule`."""
        x = self.stack.step(self.entry(self.pool(inputs[0])), state)
        rows: Tensor = self.hand_down(x)
        return rows


class Parts(Protocol):
    """What a model is made of: `patcher`, `spaces` or neither says where patches end."""

    config: BltConfig
    clock: ClockSpec
    patcher: StackStage | None
    spaces: SpaceRule | None
    embed: HashEmbed
    encoder: Stack
    pool: Pool
    entry: nn.Module
    middle: Stack
    hand_down: HandDown
    decoder: Decoder


def split(model: Parts) -> Iterator[Stage]:
    """Cut a model's modules into stages that share its weights."""
    config = model.config
    tokens, dim = InputSpec(kind="tokens"), config.encoder.dim
    if model.patcher is not None:
        yield stack_stage(PATCHER, 1, (tokens,), model.patcher, width=1)
    elif model.spaces is not None:
        yield _space_stage(model.spaces)
    window = InputSpec(kind="tokens", count=config.window, reads="newest")
    encoder = StackStage(model.embed, model.encoder, nn.Identity())
    yield stack_stage(ENCODER, 1, (window,), encoder, width=dim)
    yield _middle_stage(model)
    inputs = (
        InputSpec(kind="stream", source=ENCODER, width=dim),
        InputSpec(kind="context", source=MIDDLE, width=config.offered, reads="newest"),
    )
    spec = StageSpec(
        name=DECODER,
        stride=1,
        inputs=inputs,
        output="logits",
        width=config.vocab_size,
        layers=config.decoder_layers,
        caches=model.decoder.stack.caches(),
        parameters=count_parameters(model.decoder),
    )
    yield Stage(spec, model.decoder)


def _space_stage(rule: SpaceRule) -> Stage:
    module = SpaceStage(rule)
    pair = InputSpec(kind="tokens", count=2, reads="newest")
    spec = StageSpec(
        name=SPACES, stride=1, inputs=(pair,), output="hidden", width=1, layers=0, parameters=0, uses_position=False
    )
    return Stage(spec, module)


def _middle_stage(model: Parts) -> Stage:
    config = model.config
    module = MiddleStage(model.pool, model.entry, model.middle, model.hand_down)
    span = InputSpec(kind="window", source=ENCODER, width=config.encoder.dim, reads="span")
    spec = StageSpec(
        name=MIDDLE,
        stride=1,
        fires="close",
        inputs=(span,),
        output="hidden",
        width=config.offered,
        layers=config.middle_layers,
        caches=model.middle.caches(),
        parameters=count_parameters(module),
        clock=model.clock,
    )
    return Stage(spec, module)
