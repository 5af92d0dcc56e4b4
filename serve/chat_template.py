"""How a chat becomes a prompt: a Jinja template, run as transformers runs it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import msgspec
from jinja2 import Template, TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ..bundle import CHAT_FILES
from ..errors import ConfigError
from ..storage import storage_errors
from .failures import invalid
from .requests import Message

CONFIG, TEMPLATE = CHAT_FILES


class ChatTemplate:
    """A template, and the tokens that it may name.

    Args:
        source: in Jinja's language.
        tokens: special tokens by name, such as `eos_token`.
        ends: tokens that end a message, as the tokenizer writes them.

    Raises:
        ConfigError: it is none.
    """

    def __init__(self, source: str, tokens: dict[str, str] | None = None, ends: Sequence[str] = ()) -> None:
        self.tokens, self.ends = dict(tokens or {}), tuple(ends)
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = _now
        try:
            self._template: Template = environment.from_string(source)
        except TemplateError as error:
            raise ConfigError(f"the chat template is none that Jinja can read: {error}") from error

    def prompt(self, messages: Sequence[Message]) -> str:
        """What a model is to continue, with its own message.

        Raises:
            Failure: 400 for messages that the template does not take.
        """
        said = [_plain(message) for message in messages]
        try:
            return self._template.render(messages=said, add_generation_prompt=True, tools=None, documents=None, **self.tokens)
        except (TemplateError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError, RecursionError) as error:
            raise invalid(f"the chat template does not take these messages: {error}", "messages") from None


def _plain(message: Message) -> dict[str, Any]:
    content = message.content
    text = content if isinstance(content, str) else "".join(part.text for part in content)
    found: dict[str, Any] = {"role": message.role, "content": text}
    return found if message.name is None else {**found, "name": message.name}


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def _to_json(value: object, ensure_ascii: bool = False, indent: int | None = None) -> str:
    """Without the escapes for HTML that Jinja's own has."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


def _now(form: str) -> str:
    return datetime.now().strftime(form)


def find_template(bundle: Path, file: Path | None = None, ends: Sequence[str] = ()) -> ChatTemplate | None:
    """The template of a bundle, or another in its place.

    Args:
        bundle: that may hold `chat_template.jinja`, or a `tokenizer_config.json` with a template and special tokens.
        file: of the template to take.
        ends: tokens that end a message; none: the end token that `tokenizer_config.json` names.

    Returns:
        None if there is none.

    Raises:
        ConfigError: a template or a configuration that can't be read.
        StorageError: a file that can't be read.
    """
    config = _config_of(bundle)
    source = _text_of(file) if file is not None else None
    if source is None and (bundle / TEMPLATE).is_file():
        source = _text_of(bundle / TEMPLATE)
    if source is None:
        source = _default_of(config.get("chat_template"))
    if source is None:
        return None
    tokens = {name: text for name in ("bos_token", "eos_token", "pad_token", "unk_token") if (text := _token(config.get(name)))}
    return ChatTemplate(source, tokens, ends or [tokens[name] for name in ("eos_token",) if name in tokens])


def _config_of(bundle: Path) -> dict[str, Any]:
    file = bundle / CONFIG
    if not file.is_file():
        return {}
    with storage_errors(file):
        data = file.read_bytes()
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not a tokenizer's configuration: {error}; convert the checkpoint again") from error


def _text_of(file: Path) -> str:
    with storage_errors(file):
        data = file.read_bytes()
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"the chat template {file} is not UTF-8; save it as UTF-8") from error


def _default_of(given: object) -> str | None:
    """Of one template, or of several with names."""
    if isinstance(given, str):
        return given
    if isinstance(given, list):
        named = {one.get("name"): one.get("template") for one in given if isinstance(one, dict)}
        found = named.get("default")
        return found if isinstance(found, str) else None
    return None


def _token(given: object) -> str | None:
    """As text, or as an object that has it."""
    text = given.get("content") if isinstance(given, dict) else given
    return text if isinstance(text, str) else None
