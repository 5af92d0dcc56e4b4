"""Options that mean something only with others: given without them they are refused, not ignored."""

from __future__ import annotations

from collections.abc import Mapping

import typer

from ..errors import ConfigError


def require(context: typer.Context, conditions: Mapping[str, tuple[bool, str]]) -> None:
    """Refuse options of the running command that were given, but do nothing as things are.

    Args:
        context: of the command.
        conditions: by a parameter's name, whether it does something, and what it takes for that, as `"--layers"`.

    Raises:
        ConfigError: the first option that was given for nothing.
    """
    flags = {param.name: [*param.opts, *param.secondary_opts] for param in context.command.params}
    for name, (holds, takes) in conditions.items():
        source = context.get_parameter_source(name)
        if holds or source is None or source.name != "COMMANDLINE":
            continue
        names = flags[name]
        option = names[-1] if context.params.get(name) is False else names[0]
        raise ConfigError(f"{option} does nothing here: it takes {takes}; change that, or leave {option} out")
