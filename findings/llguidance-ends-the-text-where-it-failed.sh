#!/bin/sh
# Where llguidance can't go on, its mask allows the end of the text and nothing else, as it does where the text is whole.
#
# 2026-11-30; Python 3.11, llguidance 1.9.1.
#
# What one would guess: a mask of nothing, or an exception; the text is not what the grammar asks for.
#
# What happens: the tokenizer can't write what has to come (here it has no "c"), or a limit is met (2000 items for a rule that calls
# itself at its end). compute_bitmask then sets the bit of the end token, raises nothing and says nothing; is_error() is True only
# after it. The model ends, and a loop that samples from the mask gives out half a text as if it were finished. The class says that it
# never raises and that is_error() tells, but not that the mask looks as at a proper end: ask is_error() after every mask.
#
# For those who call llguidance's masks themselves. Exits non-zero once the mask no longer allows the end.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
"${PYTHON:-python3}" -m venv "$place/venv"
"$place/venv/bin/pip" install -q llguidance==1.9.1
"$place/venv/bin/python" - <<'PYTHON'
import sys

from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper


class Letters:
    """Three tokens: a, b, and the end."""

    tokens = [b"a", b"b", b"\xff<end>"]
    eos_token_id, bos_token_id = 2, None

    def __call__(self, text: str) -> list[int]:
        return ["ab".index(letter) for letter in text]


def ends(name: str, grammar: str, taken: list[int]) -> bool:
    matcher = LLMatcher(LLTokenizer(TokenizerWrapper(Letters())), grammar, log_level=0)
    for token in taken:
        matcher.consume_token(token)
    mask = matcher.compute_bitmask()[0]
    print(f"{name}: mask {mask:03b}, error {matcher.is_error()}, accepting {matcher.is_accepting()}")
    return mask == 0b100 and not matcher.is_accepting()


failed = ends("no token writes c or d", LLMatcher.grammar_from_regex("a[cd]"), [0])
too_long = ends("more than 2000 items", 'start: r "b"\nr: /a/ r?', [0] * 3000)
print("whole, for comparison:")
ends("a text", LLMatcher.grammar_from_regex("a"), [0])
sys.exit(not (failed and too_long))
PYTHON
