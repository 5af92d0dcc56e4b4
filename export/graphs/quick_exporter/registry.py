"""The registry of operators, 0.4 to 1 s of CPU, which torch makes anew for every graph."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any


def made_once(original: Callable[..., Any]) -> Any:
    """`ONNXRegistry.from_torchlib`, which keeps what it made for an opset; nothing is added to it later."""
    return staticmethod(_kept(original))


@cache
def _kept(original: Callable[..., Any]) -> Callable[..., Any]:
    @cache
    def registry(opset_version: int) -> Any:
        return original(opset_version=opset_version)

    return registry
