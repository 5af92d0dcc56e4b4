"""A bundle on a hub, brought into the cache whole."""

from __future__ import annotations

from pathlib import Path

import msgspec

from ..contents import FileEntry
from ..errors import BundleError
from ..json_files import decode
from ..progress import silent
from .names import HubName
from .repository import Repository

_MANIFEST = "manifest.json"  # as bundle.MANIFEST: that module fetches by this one


class _Named(msgspec.Struct):
    """Of a manifest, the files that it names."""

    files: dict[str, FileEntry]


def fetch_bundle(name: HubName) -> Path:
    """Bring a bundle into huggingface_hub's cache: what its manifest names, and nothing else of the repository.

    Returns:
        Its folder, which is to be opened as any bundle is.

    Raises:
        BundleError: there is no bundle, or not all of one.
        HubError, ConfigError, StorageError, BackendUnavailable: as `Repository`.
    """
    repository = Repository(name)
    start = f"{name.path}/" if name.path else ""
    if f"{start}{_MANIFEST}" not in repository.sizes:
        raise BundleError(
            f"{name} is not a bundle: there is no {_MANIFEST}, only {_shown(repository, start)}; if it is a checkpoint, make a "
            f"bundle of it with `foveal convert {name} BUNDLE`"
        )
    folder = repository.fetch([f"{start}{_MANIFEST}"], silent)
    manifest = folder / start / _MANIFEST
    try:
        names = decode(manifest.read_bytes(), _Named).files
    except msgspec.MsgspecError as error:
        raise BundleError(f"{_MANIFEST} of {name} is not a foveal manifest: {error}") from error
    for wanted in sorted(names):
        if f"{start}{wanted}" not in repository.sizes:
            raise BundleError(f"{name} lacks {wanted}, which its manifest names; it was not published whole: push it again")
    repository.fetch([f"{start}{wanted}" for wanted in names])
    return manifest.parent


def _shown(repository: Repository, start: str) -> str:
    found = sorted(path for path in repository.sizes if path.startswith(start))
    return f"{', '.join(found[:6])}{f' and {len(found) - 6} more' if len(found) > 6 else ''}" or "nothing"
