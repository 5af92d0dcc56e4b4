"""A bundle goes to a hub, whole or not at all: checked, with its card, in one commit."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from ..bundle import MANIFEST, OWN, Bundle, check_target, manifest_bytes, open_bundle
from ..errors import ConfigError
from .card import Figures, card_of
from .names import PREFIX, HubName, hub_name
from .refusals import library, refusals
from .repository import CARD

_OF_HUBS = (".gitattributes", CARD)
"""What a repository has by itself, or anyhow."""


class Parcel(NamedTuple):
    """What is to be published: files by their paths in the repository, of the disk or made here; the card among them."""

    files: Mapping[str, Path | bytes]
    card: str

    def sizes(self) -> dict[str, int]:
        """Bytes of each file, by path."""
        return {path: len(file) if isinstance(file, bytes) else file.stat().st_size for path, file in self.files.items()}


class Published(NamedTuple):
    """Where a bundle is now: the page of its commit, and the name that `load` takes."""

    url: str
    name: str


def pack(
    bundle: str | Path,
    repository: str,
    *,
    targets: Sequence[str] = (),
    license: str | None = None,
    figures: Sequence[Figures] = (),
) -> Parcel:
    """Check a bundle whole, and write its card; nothing is sent.

    Args:
        bundle: its directory.
        repository: where it will go, `owner/name`.
        targets: those whose engines go with it; none: all that it has.
        license: as hubs call it; None: that of the checkpoint's card, if there is one.
        figures: measured of it, for the card.

    Raises:
        BundleError: a file is missing, truncated or altered.
        ConfigError: a target that it has no engines for, or no such name.
        BackendUnavailable: huggingface_hub is not installed.
    """
    place = _place(repository)
    opened = open_bundle(bundle)
    chosen = _with_engines(opened, targets)
    manifest = chosen.manifest
    files: dict[str, Path | bytes] = {name: opened.path / name for name in sorted(manifest.files)}
    files[MANIFEST] = manifest_bytes(manifest)
    source = manifest.model.source
    size = chosen.total_bytes() + len(files[MANIFEST])  # type: ignore[arg-type]
    named = license or (None if source is None else source.license)
    card = card_of(chosen, place.repository, list(manifest.engines), size, named, figures)
    return Parcel({**files, CARD: card.encode()}, card)


def push(
    parcel: Parcel, repository: str, *, private: bool = False, revision: str | None = None, message: str = ""
) -> Published:
    """Publish a bundle in one commit; the repository is made if there is none.

    Args:
        parcel: what `pack` gave.
        repository: `owner/name`. One that is there holds a bundle, which is replaced, or nothing.
        private: make it private.
        revision: a branch, which is made if there is none; None: `main`.
        message: of the commit; empty: what was published.

    Raises:
        ConfigError: the repository holds something else, or is public and should be private.
        HubError: the hub refuses, can't be reached, or somebody else wrote meanwhile; what was there is as it was.
    """
    place = _place(repository)._replace(revision=revision)
    with refusals(place, "write"), _bars_on_terminals():
        hub = library()
        api = hub.HfApi(library_name="foveal")
        api.create_repo(place.repository, private=private or None, exist_ok=True)
        if revision is not None:
            api.create_branch(place.repository, branch=revision, exist_ok=True)
        now = api.model_info(place.repository, revision=revision)
        there = [file.rfilename for file in now.siblings]
        _require_own(place, there)
        if private and not now.private:
            raise ConfigError(
                f"{place} is public already; leave --private out, or make it private at {api.endpoint}/{repository}/settings"
            )
        add = [
            hub.CommitOperationAdd(path, file if isinstance(file, bytes) else str(file)) for path, file in parcel.files.items()
        ]
        gone = [path for path in there if path.partition("/")[0] in OWN and path not in parcel.files]
        delete = [hub.CommitOperationDelete(path) for path in gone]
        done = api.create_commit(
            place.repository,
            [*add, *delete],
            commit_message=message or f"A bundle of {sum(parcel.sizes().values()) / 1e6:.1f} MB, by foveal",
            revision=revision,
            parent_commit=now.sha,
        )
    return Published(str(done.commit_url), place.at(done.oid))


@contextmanager
def _bars_on_terminals() -> Iterator[None]:
    """huggingface_hub's bars are drawn on terminals, and not into logs."""
    bars = library().utils
    if sys.stderr.isatty() or bars.are_progress_bars_disabled():
        yield
        return
    bars.disable_progress_bars()
    try:
        yield
    finally:
        bars.enable_progress_bars()


def _place(repository: str) -> HubName:
    """A repository by its name, with or without `hf:`."""
    found = hub_name(repository if repository.startswith(PREFIX) else f"{PREFIX}{repository}")
    if found is None or found.path or found.entry or found.revision:
        raise ConfigError(f'"{repository}" is no repository to write to, expected owner/name; a branch is named by --revision')
    return found


def _with_engines(opened: Bundle, targets: Sequence[str]) -> Bundle:
    """The bundle with the engines of some targets alone; with no targets, with all of them."""
    manifest = opened.manifest
    for target in targets:
        check_target(target)
        if target not in manifest.engines:
            has = ", ".join(manifest.engines) or "none"
            raise ConfigError(f"{opened.path} has no engines for {target}, only for {has}; `foveal build` adds them")
    left_out = tuple(f"engines/{target}/" for target in manifest.engines if targets and target not in targets)
    kept = msgspec.structs.replace(
        manifest,
        engines={target: names for target, names in manifest.engines.items() if not targets or target in targets},
        files={name: entry for name, entry in manifest.files.items() if not name.startswith(left_out)},
    )
    return Bundle(opened.path, kept, opened.contents)


def _require_own(place: HubName, there: Sequence[str]) -> None:
    """Raise ConfigError if a repository holds something else than a bundle, whose card and files would be written over."""
    found = sorted(set(there) - {*_OF_HUBS})
    if found and not (MANIFEST in found and any(path.startswith("stages/") for path in found)):
        more = f" and {len(found) - 4} more" if len(found) > 4 else ""
        raise ConfigError(
            f"{place} holds something else than a bundle ({', '.join(found[:4])}{more}); choose another repository"
        )
