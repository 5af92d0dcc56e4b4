"""One line of a file of prompts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from ..errors import InputError
from ..json_files import decode
from ..runtime.generation.settings import NAMES
from ..runtime.ids import written_id

_PYTHON_ONLY = {"logits_hook", "constraint"}
OF_DRAFTS = {"draft", "draft_tokens"}
"""Settings that change no text: the job's, not a line's."""
SETTINGS = NAMES - _PYTHON_ONLY - OF_DRAFTS
"""What a line may set for itself, as `Model.generate` takes it."""


@dataclass(frozen=True)
class Line:
    """What it asks for.

    Attributes:
        number: in its file, from 1.
        id: what the line calls itself, else its number.
        prompt: text, or ids.
        settings: of its own, which go before those of the job.
        n: texts after the prompt; None: as many as the job says.
        error: why it can't be read; the prompt is nothing then.
    """

    number: int
    id: str | int
    prompt: str | list[int] = ""
    settings: dict[str, Any] = field(default_factory=dict)
    n: int | None = None
    error: InputError | None = None


def read_line(path: str, number: int, data: bytes) -> Line:
    """A line of a `.txt` file is a prompt; of a `.jsonl` file an object: `{"prompt": ..., "id": ..., and settings}`.

    What can't be read is a line with an error, under its id if it says one.
    """
    if number == 1:
        data = data.removeprefix(b"\xef\xbb\xbf")  # a byte order mark is no text
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        wrong = InputError(f"the line is not UTF-8: byte {error.start + 1} of it is {data[error.start]:#04x}; save it as UTF-8")
        return Line(number, number, error=wrong)
    if Path(path).suffix == ".txt":
        return Line(number, number, text)
    try:
        given = decode(text, dict[str, Any])
    except msgspec.MsgspecError as error:
        return Line(number, number, error=InputError(f'expected an object such as {{"prompt": "It was"}}: {error}'))
    return _of_object(number, given)


def _of_object(number: int, given: dict[str, Any]) -> Line:
    name = given.pop("id", number)
    if isinstance(name, bool) or not isinstance(name, str | int):
        return Line(number, number, error=InputError(f'"id" is {name!r}, expected text or a whole number'))
    try:
        prompt, n = _prompt(given), _count(given)
        if unknown := sorted(set(given) - SETTINGS):
            settings = ", ".join(sorted(SETTINGS))
            raise InputError(f'there is no setting "{unknown[0]}" of a line; there are: id, prompt, n, {settings}')
        return Line(number, name, prompt, {key: _value(key, value) for key, value in given.items()}, n)
    except InputError as error:
        return Line(number, name, error=error)


def _prompt(given: dict[str, Any]) -> str | list[int]:
    if "prompt" not in given:
        raise InputError('the line has no "prompt", expected text or ids')
    prompt = given.pop("prompt")
    is_ids = isinstance(prompt, list) and all(isinstance(one, int) and not isinstance(one, bool) for one in prompt)
    if not (isinstance(prompt, str) or is_ids):
        raise InputError('"prompt" is neither text nor a list of ids')
    return prompt  # type: ignore[no-any-return]


def _count(given: dict[str, Any]) -> int | None:
    n = given.pop("n", None)
    if n is not None and (isinstance(n, bool) or not isinstance(n, int) or n < 1):
        raise InputError(f'"n" is {n!r}, expected a whole number of at least 1: texts after the prompt')
    return n


def _value(name: str, value: Any) -> Any:
    """JSON knows no numbers as names: the ids of a bias are text in it."""
    if name != "logit_bias":
        return value
    found = {written_id(key): bias for key, bias in value.items()} if isinstance(value, dict) else {None: value}
    if None in found:
        raise InputError('"logit_bias" is no object of ids and what is added, such as {"17": -5}')
    return found
