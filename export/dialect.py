"""The ONNX vocabularies a stage graph can be written in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from onnx import FunctionProto

from ..errors import ConfigError
from . import functions


@dataclass(frozen=True)
class Dialect:
    """An opset and the body of cached attention in it; a later dialect is another instance of this."""

    name: str
    opset: int
    cached_attention: Callable[[int], FunctionProto]


MODERN = Dialect("modern", 24, functions.cached_attention)
DIALECTS = {dialect.name: dialect for dialect in (MODERN,)}


def dialect_named(name: str) -> Dialect:
    """The dialect of that name; raises ConfigError for another."""
    if name not in DIALECTS:
        raise ConfigError(f'unknown dialect "{name}"; expected one of {", ".join(DIALECTS)}')
    return DIALECTS[name]
