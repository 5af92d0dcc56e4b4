"""What a text has to follow."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from ...errors import FovealWarning, InputError
from .bounds import bound_let_through
from .library import MOST_NAMES, brief, limits, load_library, with_stack
from .schema_errors import failing_place

Kind = Literal["json_schema", "regex", "grammar"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_MOST_CHARACTERS = 4_000_000


@dataclass(frozen=True)
class Constraint:
    """A JSON schema, a regular expression for the whole text (Rust's syntax) or a grammar in llguidance's dialect of Lark.

    Equal ones are equal and hash alike; pickled ones are not checked again.

    Attributes:
        kind: which of them.
        source: its text; for a JSON schema a mapping or a truth value too, kept as JSON. `{}` and True are any JSON.

    Raises (when made):
        InputError: one that is not valid, that no text satisfies, or that llguidance does not know how to follow; says where.
        BackendUnavailable: llguidance is not installed.
    Warns:
        FovealWarning: what llguidance says of a part that it won't enforce.
    """

    kind: Kind
    source: str

    def __post_init__(self) -> None:
        checks = {"json_schema": _schema_text, "regex": _regex_text, "grammar": _grammar_text}
        if self.kind not in checks:
            raise InputError(f"the constraint is {self.kind!r}, expected one of {', '.join(checks)}")
        object.__setattr__(self, "source", checks[self.kind](self.source))
        if len(self.source) > _MOST_CHARACTERS:
            raise InputError(
                f"the {self.kind} has {len(self.source):,} characters, expected at most {_MOST_CHARACTERS:,}; give a part of it"
            )
        _check(self)

    def grammar(self) -> str:
        """As llguidance takes it."""
        matcher = load_library().LLMatcher
        if self.kind == "json_schema":
            return str(matcher.grammar_from_json_schema(self.source))
        return str(matcher.grammar_from_regex(self.source)) if self.kind == "regex" else self.source


def _schema_text(source: object) -> str:
    """A schema's JSON, in one form."""
    if isinstance(source, str):
        try:
            source = json.loads(source, parse_constant=_no_number)
        except json.JSONDecodeError as error:
            raise InputError(f"the JSON schema is no JSON: {error.msg} at line {error.lineno}, column {error.colno}") from error
        except RecursionError as error:
            raise InputError("the JSON schema is nested too deeply; flatten it with $defs") from error
    if not isinstance(source, Mapping | bool):
        raise InputError(f"the JSON schema is {type(source).__name__}, expected an object, true or false, as JSON or in Python")
    try:
        made = json.dumps(source if isinstance(source, bool) else dict(source), allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"the JSON schema can't be written as JSON: {error}") from error
    return _text(made, "the JSON schema", "a JSON schema")


def _no_number(name: str) -> None:
    raise InputError(f"the JSON schema has {name}, which is no JSON; give a finite number")


def _regex_text(source: object) -> str:
    return _text(source, "regex", "a regular expression")


def _grammar_text(source: object) -> str:
    """Refuses what would be followed otherwise than it says."""
    text = _text(source, "grammar", "a grammar")
    if text.lstrip().startswith("{"):
        raise InputError('the grammar begins with {, expected Lark, as in \'start: "yes" | "no"\'; for JSON give json_schema')
    if "allow_invalid_utf8" in text:
        raise InputError("the grammar allows invalid UTF-8, which is no text; leave allow_invalid_utf8 out")
    for options in _OPTIONS.findall(text):
        for name, instead in _NOT_FOLLOWED.items():
            if re.search(rf"\b{name}\s*=", options):
                raise InputError(f"the grammar has a rule with {name}=, which is not followed here; {instead}")
    return text


_OPTIONS = re.compile(r"^\s*[?!]?[\w-]+(?:::\w+)?\s*\[(.*?)\]\s*:", re.MULTILINE)
_NOT_FOLLOWED = {
    "stop": "it takes back text that was given out; use suffix= or lazy",
    "temperature": "set the temperature of the whole text instead",
}


def _text(source: object, name: str, what: str) -> str:
    if not isinstance(source, str):
        raise InputError(f"{name} is {type(source).__name__}, expected {what} (a str)")
    try:
        source.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{name} is no text: character {error.start} is half of a pair; give UTF-8") from error
    return source


def _check(constraint: Constraint) -> None:
    names = len(_NAMES[constraint.kind].findall(constraint.source))
    if names > MOST_NAMES:
        raise InputError(
            f"{_TITLES[constraint.kind]} has {names:,} rules or references, expected at most {MOST_NAMES:,}; make it smaller"
        )
    failed, messages = validate(constraint.grammar())
    if failed:
        raise InputError(f"{_TITLES[constraint.kind]} can't be followed: {_explained(constraint, messages[0])}")
    if constraint.kind == "json_schema" and (place := bound_let_through(json.loads(constraint.source))) is not None:
        raise InputError(
            f"the JSON schema can't be followed: llguidance would let the bound itself through (at {place}); "
            "give minimum or maximum, with the nearest number that may come"
        )
    for message in messages:
        if message.startswith(_SEEN_LATER):
            continue
        warnings.warn(f"{_TITLES[constraint.kind]}: {brief(message)}", FovealWarning, stacklevel=5)


_SEEN_LATER = "no tokenizer"  # so it could not look whether a token that is named is there; where a guide is made, it does
_NAMES = {
    "json_schema": re.compile(r'"\$(?:dynamic|recursive)?[Rr]ef"'),
    "grammar": re.compile(r"^\s*[?!]?[\w-]+[^:\n]*:", re.MULTILINE),
    "regex": re.compile(r"(?!)"),
}
_TITLES = {"json_schema": "the JSON schema", "regex": "the regex", "grammar": "the grammar"}


def validate(grammar: str) -> tuple[bool, list[str]]:
    """Whether llguidance refuses a grammar, and why; else what it warns of."""

    def ask() -> tuple[bool, list[str]]:
        failed, messages = load_library().LLMatcher.validate_grammar_with_warnings(grammar, limits=limits())
        return bool(failed), list(messages)

    return with_stack(ask)


def _explained(constraint: Constraint, message: str) -> str:
    """What is wrong, and where."""
    if constraint.kind == "json_schema":
        return f"{_plain(message)} (at {failing_place(json.loads(constraint.source), message, _why_refused)})"
    line = _PLACE.match(message)
    return f"line {line[1]}, column {line[2]}: {_plain(message)}" if constraint.kind == "grammar" and line else _plain(message)


def _plain(message: str) -> str:
    """Its reason; of a regular expression, which character of it."""
    found = _REGEX_ERROR.search(message)
    if found is None:
        return brief(_PLACE.sub("", message, count=1))
    return f"{found['why']}, at character {len(found['before'])} of {brief(found['regex'])}"


_PLACE = re.compile(r"(?:at )?(\d+)\((\d+)\): ")
_REGEX_ERROR = re.compile(r"regex parse error:\n    (?P<regex>.*)\n    (?P<before> *)\^+\nerror: (?P<why>.*)")


def _why_refused(schema: object) -> str | None:
    failed, messages = validate(str(load_library().LLMatcher.grammar_from_json_schema(json.dumps(schema))))
    return messages[0] if failed else None
