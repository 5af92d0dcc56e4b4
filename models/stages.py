"""How an Hourglass splits into stages: the parts that fire together, in dataflow order.

`"2@1 1@2 4@8 1@2 2@1"` becomes `1.pre`, `2.pre`, `8`, `2.post`, `1.post`. A coarse stage does shorten -> layers, and the
last one of its scale layers -> lengthen, so every stage is `entry -> stack -> exit`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..contract import InputSpec, StageSpec
from .cache import State
from .config import ModelConfig
from .embed import Embed
from .hourglass import Hourglass
from .level import Level
from .stack import Stack


class StageModule(nn.Module):
    """One stage: `exit(stack(entry(inputs)))`."""

    def __init__(self, entry: nn.Module, stack: Stack, exit: nn.Module) -> None:
        super().__init__()
        self.entry, self.stack, self.exit = entry, stack, exit

    @property
    def uses_position(self) -> bool:
        """Whether any part of the stage looks at the index of its rows."""
        has_table = isinstance(self.entry, Embed) and self.entry.positions is not None
        return has_table or len(self.stack.layers) > 0

    def forward(self, inputs: Sequence[Tensor], state: State, logit_rows: Tensor | None = None) -> Tensor:
        """Run L firings.

        Args:
            inputs: in the order of the stage's specification; token ids `[B, L]`, rows `[B, count * L, D]`.
            state: the caches of this stage's layers.
            logit_rows: which of the L rows to give to the exit, int64 `[N]`; None: all.

        Returns:
            Rows `[B, output_rows * L, D]` or logits `[B, N, V]`.
        """
        extra = (state.positions(inputs[0].shape[1]),) if isinstance(self.entry, Embed) else ()
        x = self.stack.step(self.entry(*inputs, *extra), state)
        if logit_rows is not None:
            x = x.index_select(1, logit_rows)
        y: Tensor = self.exit(x)
        return y


@dataclass(frozen=True)
class Stage:
    """A stage's place in the dataflow and its computation."""

    spec: StageSpec
    module: StageModule


def split(model: Hourglass) -> list[Stage]:
    """Cut a model into stages that share its weights."""
    if isinstance(model.root, Stack):
        return [_stage(model.config, "1", 1, (InputSpec(kind="tokens"),), StageModule(model.embed, model.root, model.head))]
    return list(_level_stages(model, model.root, 1, (InputSpec(kind="tokens"),), model.embed, model.head, 1))


def _level_stages(
    model: Hourglass,
    level: Level,
    stride: int,
    inputs: tuple[InputSpec, ...],
    entry: nn.Module,
    exit: nn.Module,
    output_rows: int,
) -> Iterator[Stage]:
    config, k, inner_stride = model.config, level.factor, stride * level.factor
    pre, post = f"{stride}.pre", f"{stride}.post"
    yield _stage(config, pre, stride, inputs, StageModule(entry, level.pre, nn.Identity()))
    window = (InputSpec(kind="window", source=pre, count=k, shift=k - 1),)
    if isinstance(level.inner, Level):
        yield from _level_stages(model, level.inner, inner_stride, window, level.shorten, level.lengthen, k)
        inside = f"{inner_stride}.post"
    else:
        inside = str(inner_stride)
        module = StageModule(level.shorten, _stack(level.inner), level.lengthen)
        yield _stage(config, inside, inner_stride, window, module, output_rows=k)
    merged = (InputSpec(kind="stream", source=pre), InputSpec(kind="context", source=inside))
    yield _stage(config, post, stride, merged, StageModule(level.merge, level.post, exit), output_rows=output_rows)


def _stack(module: nn.Module) -> Stack:
    if not isinstance(module, Stack):
        raise TypeError(f"expected a Stack at the bottom of the hourglass, got {type(module).__name__}")
    return module


def _stage(
    config: ModelConfig, name: str, stride: int, inputs: tuple[InputSpec, ...], module: StageModule, output_rows: int = 1
) -> Stage:
    spec = StageSpec(
        name=name,
        stride=stride,
        inputs=inputs,
        output="logits" if hasattr(module.exit, "logits") else "hidden",
        output_rows=output_rows,
        layers=len(module.stack.layers),
        heads=config.heads,
        head_dim=config.head_dim,
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        uses_position=module.uses_position,
    )
    return Stage(spec, module)


def time_major(rows: Tensor) -> Tensor:
    """`[B, L, D]` <-> `[L, B, D]`: the layout of rows between stages (docs/adr/0002)."""
    return torch.transpose(rows, 0, 1)
