"""How much arithmetic a token costs."""

from __future__ import annotations

from torch import nn

from .architecture import Architecture, Stage


def multiply_adds_per_token(model: Architecture, context: int) -> float:
    """Multiply-adds of one forward pass per token, averaged over a context of that many tokens.

    A weight at stride s meets one token in s; a row at that stride attends to half of context / s rows on average, or to those
    that its cache keeps. Where the data decides, s is what is expected.
    """
    return sum(_stage(stage, context) for stage in model.stages())


def training_flops_per_token(model: Architecture, context: int) -> float:
    """Forward and backward: 6 floating-point operations per multiply-add (Kaplan et al., arXiv 2001.08361, section 2.1)."""
    return 6 * multiply_adds_per_token(model, context)


def _stage(stage: Stage, context: int) -> float:
    spec = stage.spec
    stride = spec.stride if spec.clock is None else spec.clock.tokens_per_firing
    attended = sum(
        cache.heads * cache.width * (context / stride / 2 if cache.keeps is None else cache.keeps) for cache in spec.caches
    )
    return (_matrices(stage.module) + attended) / stride


def _matrices(module: nn.Module) -> int:
    """Weights that are multiplied by: of all modules, but tables that are looked up."""
    return sum(
        parameter.numel()
        for part in module.modules()
        if not isinstance(part, nn.Embedding)
        for parameter in part.parameters(recurse=False)
        if parameter.dim() == 2
    )
