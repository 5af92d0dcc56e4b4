"""Bounds of numbers that llguidance does not keep.

1.9 lets a whole number through that `exclusiveMinimum` excludes if the other bound lies below the next one: "0" is a text of
0 < x <= 0.5 then (findings/llguidance-lets-an-exclusive-bound-through.sh). So it is asked, bound by bound.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from typing import Any

from .library import limits, load_library
from .schema_errors import schema_parts

_BOUNDS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")
_EXCLUSIVE = ("exclusiveMinimum", "exclusiveMaximum")


def bound_let_through(schema: object, place: str = "#") -> str | None:
    """Where a schema has an exclusive bound that llguidance would let a model write; None: nowhere."""
    if isinstance(schema, Mapping) and any(map(_is_number, map(schema.get, _EXCLUSIVE))):
        bounds = {name: schema[name] for name in _BOUNDS if _is_number(schema.get(name))}
        for name in _EXCLUSIVE:
            if name in bounds and any(_accepts({"type": "number", **bounds}, text) for text in _written(bounds[name])):
                return f"{place}/{name}"
    parts = (bound_let_through(part, f"{place}/{step}") for step, part in schema_parts(schema))
    return next((found for found in parts if found is not None), None)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _written(bound: float) -> Iterator[str]:
    """Ways to write it."""
    yield json.dumps(bound)
    if bound == int(bound):
        yield str(int(bound))
    if bound == 0:
        yield "-0"


@functools.cache
def _bytes() -> Any:
    return load_library().LLTokenizer("byte", slices=[])


def _accepts(schema: Mapping[str, Any], text: str) -> bool:
    library = load_library()
    grammar = library.LLMatcher.grammar_from_json_schema(json.dumps(schema))
    matcher = library.LLMatcher(_bytes(), grammar, log_level=0, limits=limits())
    return bool(matcher.consume_tokens([*text.encode()]) and matcher.is_accepting())
