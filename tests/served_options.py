"""Command lines of `foveal serve` in deploy/, held against the command's own options."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from foveal.cli import app


def options_of(arguments: Sequence[str]) -> dict[str, str]:
    """By name; written as `--name=value` or as `--name value`."""
    found, name = {}, ""
    for argument in arguments:
        if argument.startswith("--"):
            name, _, value = argument.partition("=")
            found[name] = value
        elif name and not found[name]:
            found[name] = argument
    return found


def unknown_options(options: dict[str, str]) -> set[str]:
    """Those that `foveal serve` has not."""
    command = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]
    return set(options) - {option for param in command.params for option in (*param.opts, *param.secondary_opts)}


def drain_seconds(arguments: Sequence[str]) -> float:
    """How long the server goes on with what it has when it is told to end."""
    return float(options_of(arguments)["--drain"])
