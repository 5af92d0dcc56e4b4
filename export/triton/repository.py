"""`export_triton`: a bundle as a model of a Triton model repository.

REPOSITORY/
  NAME/
    config.pbtxt
    1/
      model.py    four lines: foveal's backend, which the server's Python has installed
      bundle/     the files that the manifest names, and no reports
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from pathlib import Path

from ...bundle import MANIFEST, Bundle, check_outside, open_bundle
from ...errors import ConfigError
from ...places import new_directory, resolve, what_is_in
from ...progress import Progress, silent
from ...runtime.capacity import capacity_for
from ...storage import storage_errors
from .config import FOLLOWED, Sequences, config_text
from .settings import ServerSettings
from .tensors import BUNDLE

CONFIG, VERSION, MODEL = "config.pbtxt", "1", "model.py"
_MODEL_PY = '''"""What Triton loads; the bundle lies beside it. The server's Python needs foveal: docs/deployment.md."""

import triton_python_backend_utils

from foveal.export.triton.backend import Backend


class TritonPythonModel(Backend):
    """The name that Triton looks for."""

    utils = triton_python_backend_utils
'''


@storage_errors()
def export_triton(
    bundle: str | Path | Bundle,
    repository: str | Path,
    *,
    name: str | None = None,
    settings: ServerSettings | None = None,
    sequences: Sequences | None = FOLLOWED,
    instances: int = 1,
    hard_links: bool = False,
    on_progress: Progress | None = None,
) -> Path:
    """Write a model into a Triton model repository; returns its folder.

    Nothing in it says where it was made: it can be copied, mounted or packed into an image as it is.

    Args:
        bundle: a bundle directory, every file of which is checked first, or one that was opened before.
        repository: the folder of all models; it is made if it is not there.
        name: of the model; None: that of the bundle's directory, without `.bundle`.
        settings: what each instance of the model is to have.
        sequences: how requests of one sequence find their state; None: every request stands for itself.
        instances: of the model in a server, each with weights of its own. Sequences decode together within one.
        hard_links: link the bundle's files, which takes no room, in place of copying them.
        on_progress: called before each file.

    Raises:
        CapacityError: a capacity beyond the model's positions.
        ConfigError: a model of that name is there; a name that Triton or a URL can't hold; a target that the bundle has no
            engines for; settings that can't be; hard links to another disk.
        BundleError: not a bundle, or not whole; or the repository is inside a bundle.
        StorageError: a file can't be read or written. Nothing is left of what was begun.
    """
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    settings = settings or ServerSettings()
    named = _name_of(opened, name)
    _check_engines(opened, settings.target)
    _check_sizes(sequences, instances)
    if settings.capacity:
        capacity_for((), opened.manifest.model, settings.capacity)
    place = resolve(repository) / named
    manifest = opened.manifest
    config = config_text(named, manifest.tokenizer is not None, settings.target != "cpu", settings, sequences, instances)
    with new_directory(place, check=_check_free) as directory:
        (directory / CONFIG).write_text(config, encoding="utf-8")
        version = directory / VERSION
        version.mkdir()
        (version / MODEL).write_text(_MODEL_PY, encoding="utf-8")
        _put_bundle(opened, version / BUNDLE, hard_links, on_progress or silent)
    return place


def _name_of(bundle: Bundle, name: str | None) -> str:
    found = resolve(bundle.path).name.removesuffix(".bundle") if name is None else name
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", found):
        raise ConfigError(
            f"a model can't be named {found!a}: expected letters, digits, '_', '-' and '.', at most 128 and a letter or digit "
            "first, as it is a folder and a part of URLs; give another name (--name)"
        )
    return found


def _check_engines(bundle: Bundle, target: str) -> None:
    if target not in bundle.manifest.engines:
        built = ", ".join(bundle.manifest.engines) or "none"
        raise ConfigError(
            f"{bundle.path} has no engines for {target}, only for: {built}; "
            f"add them: foveal build {bundle.path} --target {target}"
        )


def _check_sizes(sequences: Sequences | None, instances: int) -> None:
    sizes = {"instances": instances}
    if sequences is not None:
        sizes |= {"most_sequences": sequences.most, "idle_seconds": sequences.idle_seconds}
    for what, count in sizes.items():
        if count < 1:
            raise ConfigError(f"{what} must be at least 1, got {count}")


def _check_free(place: Path) -> None:
    with storage_errors(place):
        check_outside(place)
        if place.is_dir() and (found := what_is_in(place)):
            what = "a model" if (place / CONFIG).is_file() else "something that is no model"
            raise ConfigError(
                f"{place} holds {what} (it has {found[0].name}), and nothing is replaced there; give another name (--name), "
                "or remove it yourself"
            )
        if place.exists() and not place.is_dir():
            raise ConfigError(f"{place} is a file, expected a folder for the model; give another name (--name), or remove it")


def _put_bundle(bundle: Bundle, directory: Path, hard_links: bool, report: Progress) -> None:
    names = [*bundle.manifest.files, MANIFEST]
    for index, name in enumerate(names):
        report(name, index, len(names))
        target = directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        source = resolve(bundle.file(name))  # a link, as in the caches of model hubs, would lead out of the repository
        if hard_links:
            _link(source, target)
        else:
            shutil.copyfile(source, target)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK):
            raise
        raise ConfigError(
            f"{source} can't be linked into the repository ({os.strerror(error.errno)}): it is on another disk, or one without "
            "hard links; copy the files (leave --hard-links out)"
        ) from error
