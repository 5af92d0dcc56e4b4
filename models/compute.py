"""How much arithmetic a token costs."""

from __future__ import annotations

from torch import nn

from .attention import Attention
from .hourglass import Hourglass
from .level import Level


def multiply_adds_per_token(model: Hourglass, context: int) -> float:
    """Multiply-adds of one forward pass per token, averaged over a context of that many tokens.

    A weight at stride s meets one token in s; a row at that stride attends to half of context / s rows on average.
    """
    return _root(model.root, 1, context) + _matrices(model.head)


def training_flops_per_token(model: Hourglass, context: int) -> float:
    """Forward and backward: 6 floating-point operations per multiply-add (Kaplan et al., arXiv 2001.08361, section 2.1)."""
    return 6 * multiply_adds_per_token(model, context)


def _root(module: nn.Module, stride: int, context: int) -> float:
    if not isinstance(module, Level):
        return _stack(module, stride, context)
    outside = _stack(module.pre, stride, context) + _stack(module.post, stride, context) + _matrices(module.merge) / stride
    resampling = (_matrices(module.shorten) + _matrices(module.lengthen)) / (stride * module.factor)
    return outside + resampling + _root(module.inner, stride * module.factor, context)


def _stack(module: nn.Module, stride: int, context: int) -> float:
    inner = sum(layer.heads * layer.head_dim for layer in module.modules() if isinstance(layer, Attention))
    return (_matrices(module) + inner * context / stride) / stride


def _matrices(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.dim() == 2)
