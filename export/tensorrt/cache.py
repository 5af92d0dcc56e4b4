"""Engines that were built before, by what they were built from.

    engines/<first two digits>/<key>/    in `files.cache_directory()`
      engine                             as TensorRT serialised it
      entry.json                         what is known of it

An entry appears whole or not at all, so that a build that was killed
goes on, the next time, with the stage that it was at. Nothing removes entries; all of it may be removed at any time.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from pathlib import Path

import msgspec

from ...files import cache_directory, sha256_of
from ...json_files import decode
from ...places import new_directory
from ...sidecar import BuildRecord
from ...storage import said
from ..graphs.gpu import LoweredStage, weight_files
from .family import Family
from .layers import EngineLayers
from .network import NETWORK_FORMAT
from .profiles import profiles_of
from .record import this_machine

_log = logging.getLogger("foveal.tensorrt")


class CacheEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known of an engine that was built: its hash, who built it, its layers, or why they can't be read."""

    engine_sha256: str
    build: BuildRecord
    layers: EngineLayers
    unreadable: str = ""


def cache_key(stage: LoweredStage, family: Family) -> str:
    """SHA-256 of all that an engine depends on.

    The graph is hashed as it is given to the parser, so that another lowering is another key.
    """
    options, library, machine = family.options, family.library, this_machine()
    gpu = machine.gpus[0] if machine.gpus and not library.is_rtx else None
    digest = hashlib.sha256(stage.model)
    for path in weight_files(stage):
        digest.update(sha256_of(path).encode())
    rest = {
        "format": NETWORK_FORMAT,
        "library": [library.target, library.version, machine.system],
        "profiles": profiles_of(stage.spec, family.limits, stage.sizes),
        "compute_capabilities": options.compute_capabilities,
        "strip_weights": options.strip_weights,
        "gpu": None if gpu is None else [gpu.name, gpu.compute_capability],
    }
    digest.update(msgspec.json.encode(rest))
    return digest.hexdigest()


def find(key: str) -> tuple[Path, CacheEntry] | None:
    """An engine's file and what is known of it; None if there is none. One that was damaged is removed."""
    directory = _directory_of(key)
    try:
        entry = decode((directory / "entry.json").read_bytes(), CacheEntry)
        is_whole = sha256_of(directory / "engine") == entry.engine_sha256
    except FileNotFoundError:
        return None
    except OSError as error:
        _log.warning("can't read the cache of engines: %s; the engine is built", said(error))
        return None
    except msgspec.MsgspecError:
        is_whole = False
    if not is_whole:
        _log.warning("the cached engine %s was damaged; it is removed", directory)
        shutil.rmtree(directory, ignore_errors=True)
        return None
    return directory / "engine", entry


def keep(key: str, engine: memoryview, entry: CacheEntry) -> CacheEntry:
    """Add an engine, if the cache can be written; returns the entry, which need not know the engine's hash before."""
    entry = msgspec.structs.replace(entry, engine_sha256=hashlib.sha256(engine).hexdigest())
    try:
        with new_directory(_directory_of(key)) as directory:
            (directory / "engine").write_bytes(engine)
            (directory / "entry.json").write_bytes(msgspec.json.encode(entry))
    except OSError as error:
        _log.warning("can't keep the engine for other builds: %s", said(error))
    return entry


def _directory_of(key: str) -> Path:
    return cache_directory() / "engines" / key[:2] / key
