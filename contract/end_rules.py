"""Where a sequence ends by its own ids: rules that families declare by name, and that the runtime follows knowing none."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from ..errors import ConfigError


class EndRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An end that ids mark, in a sequence that is cut into patches of `period` ids from its first on.

    Rules of one name are alternatives: whichever holds first ends the sequence.

    Attributes:
        name: what people ask for, such as `"patch"` or `"piece"`.
        period: ids of a patch.
        ids: that mark the end, one after the other. Without any it is marked by a patch that is complete.
        place: in a patch, of the first of them, from 0; None: any.
        gives_out: whether they belong to what ends with them; else they are its end, as an end token is.

    Raises:
        ConfigError: no name, a period below 1, negative ids, ids that reach beyond the patch, or a complete patch that is not
            given out.
    """

    name: str
    period: int
    ids: tuple[int, ...] = ()
    place: int | None = None
    gives_out: bool = False

    def __post_init__(self) -> None:
        if not self.name.isprintable() or not self.name.strip():
            raise ConfigError(f"an end rule has the name {self.name!a}, expected a word, such as piece")
        if self.period < 1 or min(self.ids, default=0) < 0:
            raise ConfigError(
                f"end rule {self.name} has period {self.period} and ids {list(self.ids)}, expected 1 and 0 or more"
            )
        if self.place is not None and not 0 <= self.place <= self.period - max(len(self.ids), 1):
            raise ConfigError(
                f"end rule {self.name} has {len(self.ids)} ids at place {self.place}, expected within a patch of {self.period}"
            )
        if not self.ids and (self.place is not None or not self.gives_out):
            raise ConfigError(f"end rule {self.name} is of complete patches: they have no place, and are given out")

    def __str__(self) -> str:
        if not self.ids:
            return f"a patch of {self.period} is complete"
        ids = ", ".join(map(str, self.ids))
        where = {None: "a patch contains", 0: "a patch begins with"}.get(self.place, f"at {self.place} of a patch stands")
        return f"{where} {ids}"


def rules_by_name(rules: Iterable[EndRule]) -> dict[str, list[EndRule]]:
    """Alternatives together, in the order in which they are declared."""
    found: dict[str, list[EndRule]] = {}
    for rule in rules:
        found.setdefault(rule.name, []).append(rule)
    return found


def patch_rule(period: int) -> EndRule:
    """Of every family that has patches: the text ends with the patch."""
    return EndRule(name="patch", period=period, gives_out=True)
