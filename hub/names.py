"""Names of what is on a model hub: `hf:owner/name`, with a revision, a path inside and one of several models in a file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import msgspec

from ..errors import ConfigError

PREFIX = "hf:"
FORM = "hf:owner/name, with @revision and /path/inside if need be"
_NAME = re.compile(
    r"hf:/{0,2}"
    r"(?P<repository>[\w.-]+/[\w.-]+)"
    r"(?:@(?P<revision>refs/pr/\d+|refs/convert/[\w.-]+|[^/@#]+))?"
    r"(?:/(?P<path>[^#/][^#]*))?"
    r"(?:#(?P<entry>.+))?"
)


class Source(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a checkpoint is from: its name on the hub, with the commit, and the license that its card names."""

    name: str
    license: str | None = None

    @property
    def repository(self) -> str:
        """The repository, `owner/name`."""
        return self.name.removeprefix(PREFIX).partition("@")[0]


class HubName(NamedTuple):
    """A place on a hub.

    Attributes:
        repository: `owner/name`.
        revision: a branch, a tag or a commit; None: the default branch.
        path: a folder or a file in the repository; empty: all of it.
        entry: which of several models in a file, as in `run.pt#ema`; None: the only one.
    """

    repository: str
    revision: str | None = None
    path: str = ""
    entry: str | None = None

    def __str__(self) -> str:
        revision = "" if self.revision is None else f"@{self.revision}"
        inside = f"/{self.path}" if self.path else ""
        return f"{PREFIX}{self.repository}{revision}{inside}{'' if self.entry is None else f'#{self.entry}'}"

    @property
    def short(self) -> str:
        """The last part of its name: `name`, `folder` or `name@revision`."""
        last = (self.path or self.repository).rpartition("/")[2]
        return last if self.revision is None else f"{last}@{self.revision.replace('/', '-')}"

    def at(self, commit: str) -> str:
        """The same, of one commit."""
        return str(self._replace(revision=commit))


def hub_name(given: object) -> HubName | None:
    """What a path names on a hub; None: it is a path on this machine, as every path is that does not begin with `hf:`.

    As in `hf://` addresses a slash in a revision is written `%2F`, but in `refs/pr/1`.

    Raises:
        ConfigError: it begins so, and goes on otherwise.
    """
    text = given.as_posix() if isinstance(given, Path) else given
    if not isinstance(text, str) or not text.startswith(PREFIX):
        return None
    found = _NAME.fullmatch(text)
    if found is None:
        raise ConfigError(f'"{text}" is no name on a hub, expected {FORM}')
    revision, path = found["revision"], (found["path"] or "").rstrip("/")
    if not {"", ".", ".."}.isdisjoint(path.split("/")) and path:
        raise ConfigError(f'"{text}" has the path {path!r}, expected names of folders and files; {FORM}')
    return HubName(found["repository"], None if revision is None else unquote(revision), path, found["entry"])
