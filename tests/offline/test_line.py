"""A line of a file of prompts says what it asks for, or why it can't be read."""

from __future__ import annotations

import pytest

from foveal.offline.line import read_line


def test_a_line_of_text_is_the_prompt() -> None:
    """As it is, spaces included; its number is its id."""
    line = read_line("a.txt", 3, "  It was é ".encode())
    assert (line.id, line.number, line.prompt, line.settings, line.error) == (3, 3, "  It was é ", {}, None)


def test_a_byte_order_mark_is_no_text() -> None:
    """At the beginning of a file; elsewhere it is a character."""
    mark = "\ufeff".encode()
    assert read_line("a.txt", 1, mark + b"It").prompt == "It"
    assert read_line("a.txt", 2, mark + b"It").prompt == "\ufeffIt"


def test_an_object_brings_settings_of_its_own() -> None:
    """And an id, or ids in place of text; JSON's names of a bias are ids."""
    line = read_line("a.jsonl", 7, b'{"id": "x", "prompt": [1, 2], "n": 2, "temperature": 0, "logit_bias": {"17": -5}}')
    assert (line.id, line.prompt, line.n) == ("x", [1, 2], 2)
    assert line.settings == {"temperature": 0, "logit_bias": {17: -5}}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xff", "not UTF-8: byte 1"),
        (b"It was", "expected an object"),
        (b"[]", "expected an object"),
        (b"", "expected an object"),
        (b'{"id": "x"}', 'no "prompt"'),
        (b'{"id": "x", "prompt": [1, true]}', "neither text nor a list of ids"),
        (b'{"id": "x", "prompt": "a", "n": 0}', '"n" is 0'),
        (b'{"id": "x", "prompt": "a", "tone": 1}', 'there is no setting "tone"'),
        (b'{"id": "x", "prompt": "a", "logits_hook": 1}', 'there is no setting "logits_hook"'),
        (b'{"id": "x", "prompt": "a", "logit_bias": {"a": 1}}', "no object of ids"),
        (b'{"id": [], "prompt": "a"}', '"id" is []'),
    ],
)
def test_what_can_not_be_read_says_why(data: bytes, reason: str) -> None:
    """Under its id, where it says one that can be."""
    line = read_line("a.jsonl", 7, data)
    assert reason in str(line.error)
    assert line.id == ("x" if b'"x"' in data else 7)


def test_a_bias_for_an_id_that_no_model_has() -> None:
    """Of so many digits that Python makes no number of them: an error of the line, like any other."""
    line = read_line("a.jsonl", 1, b'{"id": "x", "prompt": "a", "logit_bias": {"%s": 1}}' % (b"1" * 5000))
    assert (line.id, str(line.error)) == ("x", '"logit_bias" is no object of ids and what is added, such as {"17": -5}')
