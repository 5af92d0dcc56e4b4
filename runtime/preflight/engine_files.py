"""Whether an engine file and its sidecar are those that the bundle was written with, and belong to their stage and graph."""

from __future__ import annotations

from pathlib import Path

from ...bundle import Manifest, StageEntry, sidecar_name
from ...errors import BundleError
from ...files import sha256_of
from ...sidecar import EngineSidecar, read_sidecar
from .findings import Finding

_COPY = "copy the bundle again"


def read_checked_sidecar(
    directory: Path, manifest: Manifest, target: str, stage: StageEntry, *, are_hashed: bool
) -> EngineSidecar | Finding:
    """The sidecar of a stage's engine, or what is wrong with it, the engine or the graph.

    Args:
        directory: of the bundle.
        manifest: of the bundle.
        target: whose engine it is.
        stage: the stage.
        are_hashed: the files are known to be those of the manifest, as `open_bundle` makes sure.
    """
    engine = manifest.engines[target][stage.spec.name]
    for name in () if are_hashed else (engine, sidecar_name(engine)):
        if found := _changed(directory, manifest, name):
            return found
    try:
        sidecar = read_sidecar(directory / engine)
    except BundleError as error:
        return Finding("rebuild", "sidecar", str(error))
    return (
        _contradiction(manifest, target, stage, sidecar) or _other_graph(directory, manifest, target, stage, sidecar) or sidecar
    )


def _changed(directory: Path, manifest: Manifest, name: str) -> Finding | None:
    """What happened to a file since the manifest was written."""
    entry, path = manifest.files[name], directory / name
    if not path.is_file():
        return Finding("refuse", "file", f"{name} is missing; {_COPY}")
    size, sha256 = path.stat().st_size, sha256_of(path)
    if sha256 == entry.sha256:
        return None
    if others := [other for other, known in manifest.files.items() if known.sha256 == sha256]:
        return Finding("refuse", "swapped", f"{name} is a copy of {others[0]}, so engines were swapped; {_COPY}")
    if size < entry.bytes:
        return Finding("refuse", "file", f"{name} is truncated: it has {size} bytes, expected {entry.bytes}; {_COPY}")
    if name.endswith(".json"):
        return Finding("refuse", "sidecar", f"{name} was edited: its SHA-256 differs from the manifest's; {_COPY}")
    return Finding(
        "refuse", "file", f"{name} was altered: its SHA-256 differs from the manifest's; {_COPY}, from whom you trust"
    )


def _contradiction(manifest: Manifest, target: str, stage: StageEntry, sidecar: EngineSidecar) -> Finding | None:
    """A manifest that was written anew around files that do not belong together."""
    engine = manifest.engines[target][stage.spec.name]
    name = sidecar_name(engine)
    if sidecar.stage != stage.spec.name:
        text = f'{engine} is the engine of stage "{sidecar.stage}", expected that of "{stage.spec.name}": engines were swapped'
        return Finding("refuse", "swapped", f"{text}; {_COPY}")
    if sidecar.target != target:
        text = f"{name} says that its engine is for {sidecar.target}, expected {target}: it was edited"
        return Finding("refuse", "sidecar", f"{text}; {_COPY}")
    # Engines for cpu are graphs, whose sidecars give no hash.
    if sidecar.engine_sha256 != manifest.files[engine].sha256 and (sidecar.engine_sha256 or sidecar.build is not None):
        text = f"{engine} is not the engine that {name} was written for: its SHA-256 is another"
        return Finding("refuse", "swapped", f"{text}; {_COPY}")
    return None


def _other_graph(directory: Path, manifest: Manifest, target: str, stage: StageEntry, sidecar: EngineSidecar) -> Finding | None:
    if sidecar.graph_sha256 == manifest.files[stage.graph].sha256:
        return None
    text = f"{manifest.engines[target][stage.spec.name]} was made of another graph than {stage.graph} is now"
    return Finding("rebuild", "graph", f"{text}; run {build_command(directory, target)}")


def build_command(directory: Path, target: str) -> str:
    """What makes engines of the graphs of a bundle."""
    return f"`foveal build {directory} --target {target}`"
