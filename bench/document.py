"""Figures in documents: put between marks, so that a new run replaces the old one's and nothing is typed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError


def insert(document: str, parts: Mapping[Any, str]) -> str:
    """Put figures between `<!-- figures: NAME -->` and `<!-- end: NAME -->`, in place of what is there.

    Raises:
        ConfigError: a name that the document has no such place for.
    """
    for name, text in parts.items():
        begin, end = f"<!-- figures: {name} -->", f"<!-- end: {name} -->"
        place = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        if place.search(document) is None:
            raise ConfigError(f"the document has no place for {name}; put {begin} and {end} where its figures belong")
        document = place.sub(lambda _, whole=f"{begin}\n{text}\n{end}": whole, document)  # type: ignore[misc]
    return document
