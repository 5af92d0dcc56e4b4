"""How an Hourglass splits into stages: the parts that fire together, in dataflow order.

`"2@1 1@2 4@8 1@2 2@1"` becomes `1.pre`, `2.pre`, `8`, `2.post`, `1.post`. A coarse stage does shorten -> layers, and the
last one of its scale layers -> lengthen.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from ...contract import InputSpec
from ..architecture import Stage
from ..config import ModelConfig
from ..layers.level import Level
from ..layers.stack import Stack
from ..layers.stack_stage import StackStage, stack_stage


def split(config: ModelConfig, embed: nn.Module, root: Level | Stack, head: nn.Module) -> list[Stage]:
    """Cut a model's modules into stages that share their weights."""
    tokens = (InputSpec(kind="tokens"),)
    if isinstance(root, Stack):
        return [stack_stage("1", 1, tokens, StackStage(embed, root, head), config.vocab_size)]
    return list(_level_stages(config, root, 1, tokens, embed, head, 1))


def _level_stages(
    config: ModelConfig,
    level: Level,
    stride: int,
    inputs: tuple[InputSpec, ...],
    entry: nn.Module,
    exit: nn.Module,
    output_rows: int,
) -> Iterator[Stage]:
    dim, k, inner_stride = config.dim, level.factor, stride * level.factor
    pre, post = f"{stride}.pre", f"{stride}.post"
    yield stack_stage(pre, stride, inputs, StackStage(entry, level.pre, nn.Identity()), dim)
    window = (InputSpec(kind="window", source=pre, count=k, shift=k - 1, width=dim),)
    if isinstance(level.inner, Level):
        yield from _level_stages(config, level.inner, inner_stride, window, level.shorten, level.lengthen, k)
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
    width = config.vocab_size if stride == 1 else dim
    yield stack_stage(post, stride, merged, module, width, output_rows=output_rows)


def _stack(module: nn.Module) -> Stack:
    if not isinstance(module, Stack):
        raise TypeError(f"expected a Stack at the bottom of the hourglass, got {type(module).__name__}")
    return module
