"""A group of commands, one of which need not be named."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

DEFAULT = "default"


class DefaultGroup(TyperGroup):
    """Runs its command `DEFAULT` unless the first argument is the name of another one: options and `--help` are its too."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the default's name in front where none is given; an argument that happens to be that name is an argument."""
        is_named = bool(args) and args[0] in self.commands and args[0] != DEFAULT
        rest: list[str] = super().parse_args(ctx, args if is_named else [DEFAULT, *args])
        return rest

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As the group's, but a usage line does not show a name that nobody types."""
        name, command, rest = super().resolve_command(ctx, args)
        return (None if name == DEFAULT else name), command, rest
