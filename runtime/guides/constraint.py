"""What a text has to follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Constraint:
    """A JSON schema, a regular expression or a grammar, as text."""

    kind: Literal["json_schema", "regex", "grammar"]
    source: str
