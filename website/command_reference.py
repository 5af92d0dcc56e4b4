"""The reference of the command, from typer's own commands: usage, arguments and options of every verb."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, get_args

import typer

from foveal.cli import app
from foveal.cli.default_group import DEFAULT

INTRODUCTION = """# The command

Every verb of `foveal` with its arguments and options. This page is written from the program itself; `foveal VERB --help`
prints the same. Exit codes: 0 done, 1 an error that is said in one line, 2 results differ (`verify`, `compare`) or a wrong
option, 3 engines do not fit this machine (`check`, or an engine that is loaded), 4 a target's compiler refused a stage, 5 a
figure is missing (`bench`, `bench diff`), 6 figures changed (`bench diff`), 130 Ctrl-C.
"""


def page() -> str:
    """The whole page."""
    command = typer.main.get_command(app)
    return "\n".join([INTRODUCTION, *(part for verb, path in _verbs(command, ("foveal",)) for part in _verb(verb, path))])


def _verbs(command: Any, path: tuple[str, ...]) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """Commands that do something, with how each is called; a group's own verb is called as the group."""
    for name, verb in getattr(command, "commands", {}).items():
        called = path if name == DEFAULT else (*path, name)
        yield from _verbs(verb, called) if getattr(verb, "commands", None) else [(verb, called)]


def _verb(verb: Any, path: tuple[str, ...]) -> Iterator[str]:
    arguments = [parameter for parameter in verb.params if not parameter.opts[0].startswith("-")]
    options = [parameter for parameter in verb.params if parameter.opts[0].startswith("-") and not parameter.hidden]
    usage = [*path, *(_argument(argument) for argument in arguments), *(["[OPTIONS]"] if options else [])]
    yield f"## {' '.join(path)}\n\n{_prose(verb.help)}\n\n```text\n{' '.join(usage)}\n```\n"
    if arguments:
        yield _table(("argument", "meaning"), [(f"`{_argument(each)}`", _prose(each.help)) for each in arguments])
    if options:
        rows = [(_option(each), _default(each), _prose(each.help)) for each in options]
        yield _table(("option", "if not given", "meaning"), rows)
    if verb.epilog:
        yield f"{_prose(verb.epilog)}\n"


def _argument(argument: Any) -> str:
    name = (argument.metavar or argument.name).upper()
    name += "..." if argument.nargs != 1 else ""
    return name if argument.required else f"[{name}]"


def _option(option: Any) -> str:
    """`--name VALUE`, or both names of a switch."""
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    if option.is_flag:
        return names
    value = option.metavar or _kind(option.type_descriptor.annotation)
    return f"{names} {value}{', repeatable' if option.multiple else ''}"


def _kind(annotation: Any) -> str:
    """What a value is, for people."""
    kinds = {"int": "N", "float": "X", "str": "TEXT", "Path": "PATH"}
    name = next((arg for arg in get_args(annotation) if arg is not type(None)), annotation)
    return kinds.get(getattr(name, "__name__", ""), "VALUE")


def _default(option: Any) -> str:
    default = option.default() if callable(option.default) else option.default
    if option.required:
        return "required"
    if default in (None, False, (), []) or (option.is_flag and not option.secondary_opts):
        return ""
    return f"`{default}`" if default is not True else f"`{option.opts[0]}`"


def _prose(text: str | None) -> str:
    """Help as Markdown of one paragraph; what it says in brackets is no link and no tag."""
    return " ".join((text or "").split()).replace("|", r"\|").replace("<", "&lt;").replace("[", r"\[")


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
