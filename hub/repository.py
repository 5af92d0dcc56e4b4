"""A repository of a hub at one commit: which files it has, and those that are asked for, in huggingface_hub's cache.

The cache, its place, the token, the address of the hub and whether there is a network are huggingface_hub's own: `HF_HOME`,
`HF_HUB_CACHE`, `HF_TOKEN`, `HF_ENDPOINT`, `HF_HUB_OFFLINE`. huggingface_hub compares sizes; here what came is hashed as well.
"""

from __future__ import annotations

import glob
import hashlib
import io
import os
import shutil
import sys
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import HubError, StorageError
from ..files import sha256_of
from ..parallel import together
from ..progress import Progress, silent
from .names import HubName, Source
from .refusals import library, refusals

CARD = "README.md"


class Card(NamedTuple):
    """What the model card of a repository says, if it has one: its license, and what the model was made from."""

    license: str | None = None
    base_model: str | None = None


class Repository:
    """A repository at one commit. Its files are by their paths in it.

    Args:
        name: what is asked for; its revision becomes a commit here.

    Raises:
        HubError: there is none, it may not be read, or neither the hub nor the cache has it.
        ConfigError: no hub has such a name.
        BackendUnavailable: huggingface_hub is not installed.
    """

    def __init__(self, name: HubName) -> None:
        self.name = name
        with refusals(name):
            self._api = library().HfApi(library_name="foveal")
            self._commit = self._api.resolve_revision(name.repository, revision=name.revision).resolved
            self.sizes: Mapping[str, int] = self._listed()

    @property
    def commit(self) -> str:
        """The commit, 40 hexadecimal digits."""
        return str(self._commit)

    def source(self) -> Source:
        """What a bundle says of where it is from; the card is fetched for its license."""
        return Source(name=self.name.at(self.commit), license=self.card().license)

    def inside(self, folder: str) -> list[str]:
        """Names of the files that lie in a folder, without those in folders of its own; sorted."""
        start = f"{folder}/" if folder else ""
        return sorted(path[len(start) :] for path in self.sizes if path.startswith(start) and "/" not in path[len(start) :])

    def card(self) -> Card:
        """What its `README.md` says; nothing if there is none, none to be had offline, or its metadata is no YAML."""
        if CARD not in self.sizes or (library().constants.is_offline_mode() and self._cached(CARD) is None):
            return Card()
        from yaml import YAMLError  # huggingface_hub's own reader of metadata

        path = self.fetch([CARD], silent) / CARD
        try:
            data = library().ModelCard.load(path).data
        except (YAMLError, ValueError):
            return Card()
        names = data.license if isinstance(data.license, list) else [data.license]
        if names == ["other"] and data.get("license_name"):
            names = [f"other ({data.get('license_name')})"]
        base = data.base_model[0] if isinstance(data.base_model, list) and data.base_model else data.base_model
        return Card(" or ".join(map(str, filter(None, names))) or None, base if isinstance(base, str) else None)

    def fetch(self, paths: Collection[str], report: Progress | None = None) -> Path:
        """Bring files into the cache, those that are not there; what comes is hashed.

        Args:
            paths: of files that it has.
            report: is told how many megabytes are there; None: huggingface_hub draws its own bars, on a terminal.

        Returns:
            The folder of the commit in the cache, where they lie by their paths.

        Raises:
            HubError: as above; or a file has another hash than the hub says, and was removed again.
            StorageError: the disk is too small for them, or refuses.
        """
        missing = [path for path in sorted(paths) if self._cached(path) is None]
        bars = None if report is None and sys.stderr.isatty() else _bars(report or silent, self.name, self._bytes(missing))
        with refusals(self.name):
            self._require_room(missing)
            folder = Path(
                library().snapshot_download(
                    self.name.repository,
                    revision=self.commit,
                    library_name="foveal",
                    allow_patterns=[glob.escape(path) for path in paths],
                    tqdm_class=bars,
                )
            )
        absent = next((path for path in sorted(paths) if not (folder / path).is_file()), None)
        if absent is not None:
            raise HubError(
                f"{self.name} has the file {absent}, which is not in the cache {folder}; fetch it where there is a network"
            )
        together([partial(self._check, folder / path) for path in missing], [self.sizes[path] for path in missing])
        return folder

    def _listed(self) -> dict[str, int]:
        """Sizes by path: as the cache has them of this commit, else as the hub says, else those of the files in the cache."""
        hub = library()
        try:
            found = hub.get_cached_repo_tree(self.name.repository, revision=self.commit)
        except hub.errors.CachedRepoTreeNotFoundError:
            if hub.constants.is_offline_mode():  # the cache was written by an earlier huggingface_hub
                folder = Path(hub.snapshot_download(self.name.repository, revision=self.commit, local_files_only=True))
                files = (path for path in folder.rglob("*") if path.is_file())
                return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
            found = self._api.list_repo_tree(self.name.repository, revision=self.commit, recursive=True)
        return {entry.path: entry.size for entry in found if isinstance(entry, hub.hf_api.RepoFile)}

    def _bytes(self, paths: Collection[str]) -> int:
        return sum(self.sizes[path] for path in paths)

    def _cached(self, path: str) -> str | None:
        found: Any = library().try_to_load_from_cache(self.name.repository, path, revision=self.commit)
        return found if isinstance(found, str) else None

    def _require_room(self, missing: Collection[str]) -> None:
        cache = Path(library().constants.HF_HUB_CACHE)
        wanted, free = self._bytes(missing), shutil.disk_usage(_existing(cache)).free
        if wanted > free:
            raise StorageError(
                f"{self.name} takes {wanted / 1e9:.1f} GB, and the disk of {cache} has {free / 1e9:.1f} GB left; free some "
                "space, or set HF_HUB_CACHE to a folder on another disk"
            )

    def _check(self, path: Path) -> None:
        """Hash a file that came: the cache's links lead to files that are called by the hash that the hub said.

        Where the system knows no links nothing tells the hash afterwards, and sizes alone were compared.
        """
        if not path.is_symlink():
            return
        blob = path.parent / os.readlink(path)
        if _hash(path, len(blob.name)) == blob.name:
            return
        size = path.stat().st_size
        path.unlink()
        blob.unlink(missing_ok=True)
        raise HubError(
            f"{path.name} of {self.name} came with {size} bytes of another hash than the hub says, {blob.name}; it was "
            "removed again: repeat the command; if it comes back, HF_ENDPOINT or a proxy alters files"
        )


def _hash(path: Path, digits: int) -> str:
    """As hubs hash: large files with SHA-256, others as git does."""
    if digits == 64:
        return sha256_of(path)
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def _bars(report: Progress, name: HubName, total: int) -> Any:
    """A class of bars that tell `report` how many of `total` bytes have come, and draw nothing."""
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **settings: Any) -> None:
            self._is_of_bytes = settings.get("unit") == "B"
            super().__init__(*args, **{**settings, "file": io.StringIO(), "leave": False})

        def display(self, *_args: Any, **_settings: Any) -> bool:
            if self._is_of_bytes and total:
                report(f"downloading {name}, MB", min(int(self.n), total) // 1_000_000, -(-total // 1_000_000))
            return True

    return Bar
