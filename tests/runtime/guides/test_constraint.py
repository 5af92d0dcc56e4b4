"""What is a constraint, and what is said of what is none."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

import pytest

from foveal import FovealWarning, InputError
from foveal.runtime.generation.settings import params_of
from foveal.runtime.guides.constraint import Constraint, Kind

CHAIN = "start: r0\n" + "\n".join(f"r{index}: r{index + 1}" for index in range(4900)) + '\nr4900: "a"'


@pytest.mark.parametrize(
    "constraint",
    [Constraint("json_schema", {"type": "object"}), Constraint("regex", "a|b"), Constraint("grammar", 'start: "a"')],
    ids=["json_schema", "regex", "grammar"],
)
def test_constraints_are_values(constraint: Constraint) -> None:
    """They are equal by what they say, can be keys, and survive pickling."""
    again = pickle.loads(pickle.dumps(constraint))
    assert again == constraint
    assert {constraint: 1}[again] == 1


@pytest.mark.parametrize(
    ("schema", "source"),
    [
        ({"type": "integer"}, '{"type": "integer"}'),
        (' {"type":"integer"} ', '{"type": "integer"}'),
        ({"const": "é"}, '{"const": "é"}'),
        ({}, "{}"),
        (True, "true"),
        ("true", "true"),
    ],
)
def test_a_schema_is_json_or_what_it_says(schema: Any, source: str) -> None:
    """A text, a mapping or a truth value; an empty one is any JSON."""
    assert Constraint("json_schema", schema) == params_of({"json_schema": schema}).constraint
    assert Constraint("json_schema", schema).source == source


def test_at_most_one_of_them() -> None:
    """None is none; an empty schema is one."""
    assert params_of({}).constraint is None
    assert params_of({"regex": "a", "json_schema": None}).constraint == Constraint("regex", "a")
    with pytest.raises(InputError, match="got regex and grammar, expected at most one of them"):
        params_of({"regex": "a", "grammar": 'start: "a"'})
    with pytest.raises(InputError, match="got json_schema and regex"):
        params_of({"json_schema": {}, "regex": "a"})


REFUSED: list[tuple[str, Any, str]] = [
    ("json_schema", '{"type":', "is no JSON: Expecting value at line 1, column 9"),
    ("json_schema", '{"minimum": NaN}', "has NaN, which is no JSON"),
    ("json_schema", [1], "is list, expected an object, true or false"),
    ("json_schema", "[]", "is list, expected an object, true or false"),
    ("json_schema", {"const": object()}, "can't be written as JSON"),
    ("json_schema", {"const": "\ud800"}, "is no text: character .* is half of a pair"),
    ("json_schema", False, "Unsatisfiable schema: schema is false"),
    ("json_schema", {"type": "array", "items": {"type": "strin"}}, r"Invalid type: strin \(at #/items\)"),
    ("json_schema", {"anyOf": [{}, {"type": "array", "contains": {}}]}, r'Unimplemented keys: \["contains"\] \(at #/anyOf/1\)'),
    ("json_schema", {"$defs": {"a/b": {"type": "string", "format": "x"}}, "$ref": "#/$defs/a~1b"}, r"\(at #/\$defs/a~1b\)"),
    ("json_schema", {"type": "string", "minLength": 5, "maxLength": 2}, "Unsatisfiable schema: minLength"),
    ("json_schema", {"type": "string", "pattern": "a(b"}, r"unclosed group, at character 1 of a\(b \(at #\)"),
    ("json_schema", {"not": {}}, "Unimplemented keys"),
    (
        "json_schema",
        {"prefixItems": [{"type": "number", "exclusiveMinimum": 0, "maximum": 0.5}]},
        "would let the bound itself through \\(at #/prefixItems/0/exclusiveMinimum\\); give minimum or maximum",
    ),
    ("json_schema", {"$ref": "http://127.0.0.1/x"}, "not fetch resources"),
    ("json_schema", '{"items":' * 5000 + "{}" + "}" * 5000, "nested too deeply|recursion"),
    ("regex", "ab(c", r"the regex can't be followed: unclosed group, at character 2 of ab\(c"),
    ("regex", "(?=a)b", "look-around, including .*, is not supported, at character 0"),
    ("regex", r"\ba", "lookarounds not supported yet"),
    ("regex", 3, r"regex is int, expected a regular expression \(a str\)"),
    ("regex", "\ud800", "regex is no text: character 0 is half of a pair"),
    ("grammar", 'start: "a" b\nb: c', "the grammar can't be followed: line 2, column 4: unknown name"),
    ("grammar", 'start: "a" /(/', "line 1, column 8: unclosed group, at character 0"),
    ("grammar", 'rule: "a"', "no start rule found"),
    ("grammar", "", "Empty grammar"),
    ("grammar", '{"grammars": []}', "begins with {, expected Lark"),
    (
        "grammar",
        "start[temperature=0.5]: /a/",
        "has a rule with temperature=, which is not followed here; set the temperature of",
    ),
    ("grammar", 'start: a "b"\na[capture, stop="c"]: /a*/', "has a rule with stop=.*use suffix= or lazy"),
    ("grammar", '%llguidance {"allow_invalid_utf8": true}\nstart: /a/', "allows invalid UTF-8, which is no text"),
    (
        "grammar",
        CHAIN.replace('r4900: "a"', "\n".join(f"x{index}: r0" for index in range(200))),
        "has 5,1.. rules or references",
    ),
    ("yaml", "a: b", "the constraint is 'yaml', expected one of json_schema, regex, grammar"),
]


@pytest.mark.parametrize(("kind", "source", "message"), REFUSED)
def test_what_can_t_be_followed_is_refused_where_it_is_made(kind: Kind, source: Any, message: str) -> None:
    """Without a tokenizer, with what is wrong and where, in one short line."""
    with pytest.raises(InputError, match=message) as caught:
        Constraint(kind, source)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("bounds", [{"exclusiveMinimum": 0}, {"exclusiveMinimum": 0, "exclusiveMaximum": 1}, {"minimum": 0}])
def test_bounds_that_are_kept_are_taken(bounds: dict[str, float]) -> None:
    """By the same question."""
    assert Constraint("json_schema", {"type": "number", **bounds})


def test_what_is_not_enforced_is_said() -> None:
    """llguidance leaves out keywords it does not know if the schema says so."""
    with pytest.warns(FovealWarning, match=r'the JSON schema: Unimplemented keys: \["not"\]'):
        Constraint("json_schema", {"not": {}, "x-guidance": {"lenient": True}})


def test_tokens_that_are_named_are_looked_up_later() -> None:
    """Here there is no tokenizer."""
    assert Constraint("grammar", "start: <|tool|>").source == "start: <|tool|>"


def test_a_long_chain_of_rules_does_not_end_the_process() -> None:
    """llguidance descends with each; nor does one of references, seen from a thread with little stack."""
    assert Constraint("grammar", CHAIN).source == CHAIN
    code = (
        "import threading\nfrom foveal.runtime.guides.constraint import Constraint\n"
        "names = {f'd{i}': {'properties': {'a': {'$ref': f'#/$defs/d{i + 1}'}}} for i in range(1500)}\n"
        "schema = {'$ref': '#/$defs/d0', '$defs': {**names, 'd1500': True}}\n"
        "threading.stack_size(1 << 18)\n"
        "thread = threading.Thread(target=lambda: print(Constraint('json_schema', schema).kind))\n"
        "thread.start(); thread.join()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("json_schema\n", 0)


def test_llguidance_is_loaded_where_a_constraint_is_made() -> None:
    """And where it is missing, that is said, with the line that installs it."""
    code = (
        "import sys\nimport foveal.runtime.guides.constraint as found, foveal.runtime.guides.guides\n"
        "assert 'llguidance' not in sys.modules\nsys.modules['llguidance'] = None\n"
        "try: found.Constraint('regex', 'a')\nexcept ImportError as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == (
        "BackendUnavailable llguidance can't be imported; constrained decoding needs it: "
        "pip install '.[guided]' in foveal's folder, or with its wheel in the place of the dot\n"
    ), done.stderr
