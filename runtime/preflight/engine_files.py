"""Whether an engine file and its sidecar are those that the bundle was written with, and belong to their stage and graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from ...bundle import Manifest, chunks_name, data_name, sidecar_name
from ...errors import BundleError
from ...files import sha256_of
from ...sidecar import EngineSidecar, read_sidecar
from .findings import Finding

_COPY = "copy the bundle again"


def read_checked_sidecar(
    directory: Path, manifest: Manifest, target: str, stage: str, what_changed: Callable[[str], Finding | None]
) -> EngineSidecar | Finding:
    """The sidecar of an engine, or what is wrong with it, the engine or the graph.

    Args:
        directory: of the bundle.
        manifest: of the bundle.
        target: whose engine it is.
        stage: whose it is; or `SAMPLER`, which is made from no graph.
        what_changed: what happened to a file since the manifest was written; nothing, after `open_bundle`.
    """
    engine, graph = manifest.engines[target][stage], _graph_of(manifest, stage)
    for name in _files(manifest, engine, graph):
        if found := what_changed(name):
            return found
    try:
        sidecar = read_sidecar(directory / engine)
    except BundleError as error:
        return Finding("rebuild", "sidecar", str(error))
    return (
        _contradiction(directory, manifest, target, stage, sidecar)
        or _other_graph(directory, manifest, target, stage, sidecar)
        or sidecar
    )


def files_of_no_stage(manifest: Manifest) -> list[str]:
    """Files of the bundle that are no stage's and no engine's: the tokenizer."""
    graphs = {name for stage in manifest.stages for name in _files(manifest, None, stage.graph)}
    engines = {
        name for by_stage in manifest.engines.values() for engine in by_stage.values() for name in _files(manifest, engine)
    }
    return sorted(manifest.files.keys() - graphs - engines)


def _graph_of(manifest: Manifest, stage: str) -> str | None:
    return next((entry.graph for entry in manifest.stages if entry.spec.name == stage), None)


def _files(manifest: Manifest, engine: str | None, graph: str | None = None) -> list[str]:
    """Those that belong to an engine and to the graph it was made from, as far as they are there."""
    names = [] if engine is None else [engine, sidecar_name(engine), data_name(engine)]
    names += [] if engine is None else [chunks_name(engine), data_name(chunks_name(engine))]
    names += [] if graph is None else [graph, data_name(graph)]
    return [name for name in names if name in manifest.files]


def changed(directory: Path, manifest: Manifest, name: str) -> Finding | None:
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
    if name.startswith("engines/") and name.endswith(".json"):
        return Finding("refuse", "sidecar", f"{name} was edited: its SHA-256 differs from the manifest's; {_COPY}")
    return Finding(
        "refuse", "file", f"{name} was altered: its SHA-256 differs from the manifest's; {_COPY}, from whom you trust"
    )


def _contradiction(directory: Path, manifest: Manifest, target: str, stage: str, sidecar: EngineSidecar) -> Finding | None:
    """A manifest that was written anew around files that do not belong together."""
    engine = manifest.engines[target][stage]
    name = sidecar_name(engine)
    mend = f"{_COPY}, or run {build_command(directory, target)}"
    if sidecar.stage != stage:
        text = f'{engine} is the engine of stage "{sidecar.stage}", expected that of "{stage}": engines were swapped'
        return Finding("refuse", "swapped", f"{text}; {mend}")
    if sidecar.target != target:
        text = f"{name} says that its engine is for {sidecar.target}, expected {target}: it was edited"
        return Finding("refuse", "sidecar", f"{text}; {mend}")
    if not sidecar.engine_sha256:
        text = f"{name} does not say which engine it was written for, as those of an earlier foveal"
        return Finding("rebuild", "sidecar", f"{text}; run {build_command(directory, target)}")
    for file, known in _hashes(engine, sidecar):
        if _sha256(manifest, file) != known:
            what = "the weights" if file.endswith(".data") else "the engine"
            text = f"{file} is not {what} that {name} was written for: its SHA-256 is another"
            return Finding("refuse", "swapped", f"{text}; {mend}")
    return None


def _hashes(engine: str, sidecar: EngineSidecar) -> Iterator[tuple[str, str]]:
    """Of the files of an engine, as its sidecar knows them."""
    yield engine, sidecar.engine_sha256
    yield data_name(engine), sidecar.engine_data_sha256
    if sidecar.chunks is not None:
        chunks = chunks_name(engine)
        yield chunks, sidecar.chunks.engine_sha256
        yield data_name(chunks), sidecar.chunks.engine_data_sha256


def _other_graph(directory: Path, manifest: Manifest, target: str, stage: str, sidecar: EngineSidecar) -> Finding | None:
    graph = _graph_of(manifest, stage)
    if graph is None:
        return None
    engine, mend = manifest.engines[target][stage], f"run {build_command(directory, target)}"
    if sidecar.graph_sha256 != _sha256(manifest, graph):
        return Finding("rebuild", "graph", f"{engine} was made of another graph than {graph} is now; {mend}")
    if sidecar.graph_data_sha256 != _sha256(manifest, data_name(graph)):
        text = f"{engine} was made of other weights than {data_name(graph)} holds now"
        return Finding("rebuild", "graph", f"{text}; {mend}")
    return None


def _sha256(manifest: Manifest, name: str) -> str:
    """By the manifest; empty for a file that it does not name."""
    return manifest.files[name].sha256 if name in manifest.files else ""


def build_command(directory: Path, target: str) -> str:
    """What makes engines of the graphs of a bundle."""
    return f"`foveal build {directory} --target {target}`"
