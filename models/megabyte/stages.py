"""How a MEGABYTE splits into stages: one per scale.

A coarse scale fires ahead: firing 0 is the start token, before there is any token, and firing i is patch i-1, once its last
token is known. Inner scales reset with every patch of the next coarser one, so that firing 0 of such a period is the start
token again and firing j is patch j-1 of it plus the row that was handed down for that patch. The last patch of a period is
never fed: what would follow it is another period. The fine scale fires for every token; its start token is no firing, as no
one reads what it gives, but a constant of the weights (`FirstRow`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...contract import InputSpec, StageSpec
from ..architecture import Stage, count_parameters
from ..cache import State
from .scale import CoarseScale, FineScale


class CoarseStage(nn.Module):
    """Firings of a coarse scale."""

    def __init__(self, scale: CoarseScale) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, inputs: Sequence[Tensor], state: State, logit_rows: Tensor | None = None) -> Tensor:
        """As `StageModule`; inputs are the ids of the patches before, and the rows handed down for those."""
        scale, (ids, *context) = self.scale, inputs
        firings = state.positions(ids.shape[1] // scale.stride)
        patches = scale.enter(ids, firings - 1, context[0] if context else None)
        x = torch.where((firings == 0)[:, :, None], scale.start, patches)
        return scale.exit(scale.stack.step(x, state))


class FineStage(nn.Module):
    """Tokens; its constants are worked out from the weights when it is made."""

    def __init__(self, scale: FineScale) -> None:
        super().__init__()
        self.scale = scale
        self.first_rows = scale.stack.first_rows(scale.start)

    def forward(self, inputs: Sequence[Tensor], state: State, logit_rows: Tensor | None = None) -> Tensor:
        """As `StageModule`; inputs are the ids, and the rows handed down for them."""
        scale, (ids, *context) = self.scale, inputs
        x = scale.enter(ids, state.positions(ids.shape[1]), context[0] if context else None)
        x = scale.stack.step_behind(x, state, self.first_rows)
        return scale.exit(x if logit_rows is None else x.index_select(1, logit_rows))


def coarse_stage(scale: CoarseScale, coarser: StageSpec | None) -> Stage:
    """The stage of a scale that reads what a coarser stage hands down; None: it is the coarsest."""
    module, size = CoarseStage(scale), scale.stride
    patch = InputSpec(kind="tokens", count=size, shift=size)
    spec = StageSpec(
        name=str(size),
        stride=size,
        fires="ahead",
        inputs=(patch, *_context(coarser, shift=1)),
        output="hidden",
        output_rows=scale.factor,
        width=scale.finer_dim,
        layers=len(scale.stack.layers),
        caches=scale.stack.caches(scale.length),
        parameters=count_parameters(module),
        resets=scale.length,
    )
    return Stage(spec, module)


def fine_stage(scale: FineScale, coarser: StageSpec | None) -> Stage:
    """The stage that gives logits."""
    module = FineStage(scale)
    spec = StageSpec(
        name="1",
        stride=1,
        inputs=(InputSpec(kind="tokens"), *_context(coarser, shift=0)),
        output="logits",
        width=scale.logits.out_features,
        layers=len(scale.stack.layers),
        caches=scale.stack.caches(scale.length),
        parameters=count_parameters(module),
        resets=scale.length,
    )
    return Stage(spec, module)


def _context(coarser: StageSpec | None, shift: int) -> tuple[InputSpec, ...]:
    """The row handed down for this firing's patch or token: row i of firing i, or of firing i+1 where the start is one."""
    if coarser is None:
        return ()
    return (InputSpec(kind="context", source=coarser.name, shift=shift, width=coarser.width),)
