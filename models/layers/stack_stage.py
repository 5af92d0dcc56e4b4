"""A stage of Transformer layers, `entry -> stack -> exit`, as those of most families are."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ...contract import CacheSpec, Fires, InputSpec, StageSpec
from ..architecture import Stage, count_parameters
from ..cache import State
from .embed import Embed
from .stack import Stack


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
