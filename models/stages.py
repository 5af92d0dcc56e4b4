"""How an Hourglass splits into stages: the parts that fire together, in dataflow order.

`"2@1 1@2 4@8 1@2 2@1"` becomes `1.pre`, `2.pre`, `8`, `2.post`, `1.post`. A coarse stage does shorten -> layers, and the
last one of its scale layers -> lengthen, so every stage is `entry -> stack -> exit` (`StackStage`), as those of most other
families are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from ..contract import CacheSpec, Fires, InputSpec, StageSpec
from .architecture import Stage, count_parameters
from .cache import State
from .layers.embed import Embed
from .layers.level import Level
from .layers.stack import Stack

if TYPE_CHECKING:
    from .hourglass import Hourglass


class StackStage(nn.Module):
    """A stage of Transformer layers: `exit(stack(entry(inputs)))`."""

    def __init__(self, entry: nn.Module, stack: Stack, exit: nn.Module) -> None:
        super().__init__()
        self.entry, self.stack, self.exit = entry, stack, exit

    @property
    def uses_position(self) -> bool:
        """Whether any part of the stage looks at the index of its rows."""
        has_table = isinstance(self.entry, Embed) and self.entry.positions is not None
        return has_table or len(self.stack.layers) > 0

    @property
    def caches(self) -> tuple[CacheSpec, ...]:
        """Keys and values of its layers."""
        return self.stack.caches()

    def forward(self, inputs: Sequence[Tensor], state: State, logit_rows: Tensor | None = None) -> Tensor:
        """As `StageModule`."""
        extra = (state.positions(inputs[0].shape[1]),) if isinstance(self.entry, Embed) else ()
        x = self.stack.step(self.entry(*inputs, *extra), state)
        if logit_rows is not None:
            x = x.index_select(1, logit_rows)
        y: Tensor = self.exit(x)
        return y


def split(model: Hourglass) -> list[Stage]:
    """Cut a model into stages that share its weights."""
    if isinstance(model.root, Stack):
        whole = StackStage(model.embed, model.root, model.head)
        return [stack_stage("1", 1, (InputSpec(kind="tokens"),), whole, model.vocab_size)]
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
    dim, k, inner_stride = model.config.dim, level.factor, stride * level.factor
    pre, post = f"{stride}.pre", f"{stride}.post"
    yield stack_stage(pre, stride, inputs, StackStage(entry, level.pre, nn.Identity()), dim)
    window = (InputSpec(kind="window", source=pre, count=k, shift=k - 1, width=dim),)
    if isinstance(level.inner, Level):
        yield from _level_stages(model, level.inner, inner_stride, window, level.shorten, level.lengthen, k)
        inside = f"{inner_stride}.post"
    else:
        inside = str(inner_stride)
        module = StackStage(level.shorten, _stack(level.inner), level.lengthen)
        yield stack_stage(inside, inner_stride, window, module, dim, output_rows=k)
    merged = (
        InputSpec(kind="stream", source=pre, width=dim),
        InputSpec(kind="context", source=inside, width=dim),
    )
    module = StackStage(level.merge, level.post, exit)
    width = model.vocab_size if exit is model.head else dim
    yield stack_stage(post, stride, merged, module, width, output_rows=output_rows)


def _stack(module: nn.Module) -> Stack:
    if not isinstance(module, Stack):
        raise TypeError(f"expected a Stack at the bottom of the hourglass, got {type(module).__name__}")
    return module


def stack_stage(
    name: str,
    stride: int,
    inputs: tuple[InputSpec, ...],
    module: StackStage,
    width: int,
    output_rows: int = 1,
    fires: Fires = "open",
    resets: int | None = None,
) -> Stage:
    """A stage of Transformer layers; it gives logits if its exit is a `Head` (has `logits`)."""
    spec = StageSpec(
        name=name,
        stride=stride,
        fires=fires,
        inputs=inputs,
        output="logits" if hasattr(module.exit, "logits") else "hidden",
        output_rows=output_rows,
        width=width,
        layers=len(module.stack.layers),
        caches=module.stack.caches(resets),
        parameters=count_parameters(module),
        uses_position=module.uses_position,
        resets=resets,
    )
    return Stage(spec, module)
