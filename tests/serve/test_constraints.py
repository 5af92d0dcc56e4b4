"""Texts that follow a schema, an expression or a grammar, in OpenAI's words or in foveal's own."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from serving import Site

pytest.importorskip("llguidance")

SCHEMA = {"type": "object", "properties": {"a": {"enum": [1, 22]}}, "required": ["a"], "additionalProperties": False}
NAMED = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}


@pytest.mark.parametrize("fields", [{"json_schema": SCHEMA}, {"json_schema": json.dumps(SCHEMA)}, {"response_format": NAMED}])
def test_a_schema_is_followed(site: Site, fields: dict[str, Any]) -> None:
    """To its end, after which nothing may come."""
    choice = site.complete(prompt="It was", seed=1, max_tokens=100, foveal=True, **fields).json()["choices"][0]
    assert json.loads(choice["text"])["a"] in (1, 22)
    assert (choice["finish_reason"], choice["foveal"]["finish_reason"]) == ("stop", "complete")


def test_an_expression_and_a_grammar_are_followed(site: Site) -> None:
    """Also by each of several texts."""
    for choice in site.complete(prompt="It was", n=3, seed=1, regex="[ab]{3}", max_tokens=20).json()["choices"]:
        assert re.fullmatch("[ab]{3}", choice["text"])
    assert site.text(prompt="It was", seed=1, grammar='start: "yes" | "no"', max_tokens=20) in ("yes", "no")


def test_any_object_begins_as_one(site: Site) -> None:
    """How far it gets is a matter of `max_tokens`."""
    assert site.text(prompt="a", response_format={"type": "json_object"}, max_tokens=3).startswith("{")
    assert site.text(prompt="a", response_format={"type": "text"}, temperature=0) == site.text(prompt="a", temperature=0)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "two": ({"regex": "a", "json_schema": {}}, "at most one"),
    "a format and another": ({"regex": "a", "response_format": {"type": "json_object"}}, "one of them"),
    "an expression that is none": ({"regex": "("}, "unclosed group"),
    "a grammar that is none": ({"grammar": "nothing"}, "grammar"),
    "an empty grammar": ({"grammar": ""}, "grammar"),
    "a schema that is none": ({"json_schema": {"type": "nothing"}}, "schema"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_constraints_that_cannot_be_followed_are_refused(site: Site, kind: str) -> None:
    """With what is wrong with them."""
    fields, said = REFUSED[kind]
    assert said in site.refusal(400, prompt="a", **fields)["message"]
