"""Before an engine is loaded: does it fit this machine? Nothing is imported until it is used: CPU engines need little of it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checking import Preflight, check, check_all, require_match
    from .whole import require_whole

_LAZY = {
    "Preflight": ".checking",
    "check": ".checking",
    "check_all": ".checking",
    "require_match": ".checking",
    "require_whole": ".whole",
}

__all__ = ["Preflight", "check", "check_all", "require_match", "require_whole"]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name], __name__), name)
