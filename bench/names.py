"""Figures go by the names of their bundles: two of one name can't be told apart, nor compared with what was saved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..bundle import bundle_name
from ..errors import ConfigError


def require_different_names(bundles: Sequence[str | Path]) -> None:
    """Before anything is opened: raises ConfigError if a bundle is there twice, or two are called the same."""
    names = [bundle_name(path) for path in bundles]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{names.count(name)} bundles are called {name}, and figures go by name; rename all but one")
