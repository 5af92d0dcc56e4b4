"""Where in a JSON schema something is wrong: llguidance says what, but not where."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from time import perf_counter
from typing import Any

_OF_ONE = ("items", "additionalProperties", "additionalItems")
_OF_MANY = ("anyOf", "oneOf", "allOf", "prefixItems")
_BY_NAME = ("properties", "patternProperties", "$defs", "definitions")
_MOST_SECONDS = 0.2  # of looking; a large schema takes long each time


def failing_place(schema: object, message: str, why_refused: Callable[[object], str | None]) -> str:
    """A JSON pointer to the innermost part of a schema that is refused by itself for the same reason; `#` is the whole.

    Args:
        schema: the whole schema, which is refused.
        message: why.
        why_refused: why a schema is refused by itself; None: it is not.
    """
    shared = {name: schema[name] for name in ("$defs", "definitions") if name in schema} if isinstance(schema, Mapping) else {}
    place, until = "#", perf_counter() + _MOST_SECONDS
    while True:
        for step, part in schema_parts(schema):
            if perf_counter() > until:
                return place
            if why_refused({**part, **shared} if isinstance(part, Mapping) and _points(part) else part) == message:
                place, schema = f"{place}/{step}", part
                break
        else:
            return place


def schema_parts(schema: object) -> Iterator[tuple[str, Any]]:
    """The schemas right below one, each with the way to it."""
    if not isinstance(schema, Mapping):
        return
    for name in _OF_ONE:
        if name in schema:
            yield name, schema[name]
    for name in _OF_MANY:
        if isinstance(schema.get(name), list):
            yield from ((f"{name}/{index}", part) for index, part in enumerate(schema[name]))
    for name in _BY_NAME:
        if isinstance(schema.get(name), Mapping):
            yield from ((f"{name}/{_escaped(key)}", part) for key, part in schema[name].items())


def _escaped(key: object) -> str:
    return str(key).replace("~", "~0").replace("/", "~1")


def _points(schema: object) -> bool:
    """Whether it has a `$ref` anywhere."""
    if isinstance(schema, Mapping):
        return "$ref" in schema or any(map(_points, schema.values()))
    return isinstance(schema, list) and any(map(_points, schema))
