"""What a job is: if it is begun again, it has to be the same one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from .inputs import InputFile
from .tasks import Kind

VERSION = 1


class JobManifest(msgspec.Struct, frozen=True):
    """What its results depend on. How many work on it is no part of that.

    Attributes:
        version: of this description.
        kind, settings, n, as_ids: of the task.
        bundle: identity of the bundle's graphs and engines.
        target: whose engines run.
        capacity: the most tokens of a sequence; None: the model's context.
        part_lines: lines of a part.
        inputs: the files.
    """

    version: int
    kind: Kind
    settings: dict[str, Any]
    n: int
    as_ids: bool
    bundle: str
    target: str
    capacity: int | None
    part_lines: int
    inputs: list[InputFile]


def difference(found: JobManifest, wanted: JobManifest) -> str | None:
    """The first thing in which a job that is there is another one, in words; None: it is the same."""
    pairs = zip(_said(found), _said(wanted), strict=False)
    for (name, before), (other, now) in pairs:
        if (name, before) != (other, now):
            return f"{name} was {before!r}" + (f", is now {now!r}" if name == other else "")
    if len(found.inputs) != len(wanted.inputs):
        return f"it had {len(found.inputs)} files, there are now {len(wanted.inputs)}"
    return None


def _said(manifest: JobManifest) -> Iterator[tuple[str, object]]:
    """Of two jobs these are compared one by one; the bundle comes first, the files last."""
    given = msgspec.to_builtins(manifest)
    yield from (
        (name, given[name]) for name in ("version", "kind", "bundle", "target", "n", "as_ids", "capacity", "part_lines")
    )
    settings: Mapping[str, Any] = given["settings"]
    yield from ((f"setting {name}", settings[name]) for name in sorted(settings))
    for one in given["inputs"]:
        yield "a file", one["path"]
        yield from ((f"{name} of {one['path']}", one[name]) for name in ("size", "sha256", "lines"))
