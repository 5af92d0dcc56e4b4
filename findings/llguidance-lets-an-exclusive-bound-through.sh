#!/bin/sh
# llguidance allows a number that exclusiveMinimum or exclusiveMaximum excludes, if the other bound lies within the same unit.
#
# 2026-11-30; Python 3.11, llguidance 1.9.1.
#
# What one would guess: text that a mask of a JSON schema allowed is valid by that schema, or the schema is refused.
#
# What happens: with 0 < x <= 0.5 the model may write 0; with 1 < x < 1.5 it may write 1, with -0.5 <= x < 0 it may write -0. The
# regular expression for such numbers has "the whole number, then perhaps decimals between the two", and the bound is the whole
# number without decimals. 0 < x < 1 and 0 < x <= 2 are right: there the bounds differ in their whole part. So rates, shares and
# learning rates (0 < x <= 0.5) come out as 0, which a validator then refuses.
#
# For those who trust a constrained text to be valid. Exits non-zero once none of the bounds comes through.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
"${PYTHON:-python3}" -m venv "$place/venv"
"$place/venv/bin/pip" install -q llguidance==1.9.1
"$place/venv/bin/python" - <<'PYTHON'
import sys

from llguidance import LLMatcher, LLTokenizer

BYTES = LLTokenizer("byte")


def accepts(schema: dict[str, object], text: str) -> bool:
    matcher = LLMatcher(BYTES, LLMatcher.grammar_from_json_schema(schema))
    return matcher.consume_tokens(list(text.encode())) and matcher.is_accepting()


wrong = 0
for bounds, text in (
    ({"exclusiveMinimum": 0, "maximum": 0.5}, "0"),
    ({"exclusiveMinimum": 1, "exclusiveMaximum": 1.5}, "1"),
    ({"minimum": -0.5, "exclusiveMaximum": 0}, "-0"),
    ({"exclusiveMinimum": 0, "exclusiveMaximum": 1}, "0"),
    ({"exclusiveMinimum": 0, "maximum": 2}, "0"),
):
    is_accepted = accepts({"type": "number", **bounds}, text)
    wrong += is_accepted
    print(f"{bounds}: {text} is {'accepted' if is_accepted else 'refused'}")
sys.exit(wrong == 0)
PYTHON
