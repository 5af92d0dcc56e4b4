"""The bundle: the directory a conversion writes and the runtime reads.

    bundle/
      manifest.json            what the model is, its stages as a dataflow program, every file's size and SHA-256
      stages/<name>.onnx       portable stage graphs, weights beside them in <name>.onnx.data
      engines/<target>/...     what a target's compiler made of them, each with a sidecar <name>.json; of cpu engines also
                               programs of native steps, <name>.native.json, with their weights in <name>.native
      tokenizer.json           Hugging Face tokenizers format (absent: "bytes", "bytes+4", or ids only)
      tokenizer_config.json, chat_template.jinja    how a chat becomes a prompt, where the checkpoint says it
      reports/                 what was verified or measured; not part of the manifest

Opening checks the manifest and that every file is there, of its size. Contents are hashed before they are used: those of all
files at once, or each when it is asked for (`contents.py`, docs/adr/0027). Engines are native code: a hash says that a file is
the one that was built, not that who built it can be trusted. Forbidden: paths that leave the directory, files the manifest does
not name under `stages/` and `engines/`, unknown fields, other schema versions. A file may be a link, as in the caches of model
hubs: what it leads to is hashed as any file is.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated

import msgspec

from .contents import VERIFY, Contents, FileEntry, Verify, check_size
from .contract import EndRule, StageSpec, problem_of
from .contract.program import program_names
from .errors import BundleError, ConfigError
from .files import clear_parts, sha256_of, write_atomically
from .hub.names import HubName, Source, hub_name
from .json_files import decode
from .places import is_being_written, new_directory, resolve, settle, what_is_in
from .precision import Plan
from .progress import Progress
from .sidecar import EngineSidecar, read_sidecar
from .storage import storage_errors

SCHEMA_VERSION = 2
_TOKENIZERS = r"^(tokenizer\.json|bytes(\+[1-9][0-9]{0,8})?)$"
MANIFEST = "manifest.json"
BESIDE_ENGINES = (".json", ".native")
"""How files end that stand beside a target's engines and compute nothing that a session keeps: sidecars, programs."""
CHAT_FILES = ("tokenizer_config.json", "chat_template.jinja")
"""Beside a tokenizer, what says how a chat becomes a prompt; a bundle has those that its checkpoint has."""
OWN = (MANIFEST, "tokenizer.json", *CHAT_FILES, "stages", "engines", "reports")
"""What is a bundle's in its directory; what else lies there is left alone. The manifest makes it whole."""
_BY_STAGE = ("stages/", "engines/")
"""Folders of which a program uses a part: the engines of one target."""
TARGETS = ("cpu", "cuda", "tensorrt", "tensorrt-rtx")
SAMPLER = "sampler"
"""Beside those of its stages, a device's engines have one of this name, which draws tokens (`export/graphs/sampler.py`)."""
ITEM_BYTES = {"float32": 4, "float16": 2, "int8": 1}


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was converted. `max_positions` is a hard limit, or None where positions are relative.

    `notes` say what was assumed, taken off or widened when its checkpoint was read. `end_rules` are where its sequences end by
    their own ids; bundles of before there were any have none. `source` is where on a hub the checkpoint was; None: it was on
    the disk.
    """

    architecture: str
    source_format: str
    hierarchy: str
    vocab_size: int
    dim: int
    max_positions: int | None
    context: int
    parameters: int
    layer_equivalents: float
    notes: tuple[str, ...] = ()
    end_rules: tuple[EndRule, ...] = ()
    source: Source | None = None


class StageEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A stage and its portable graph.

    Of its weights, `table_bytes` are looked up row by row and nothing else; the rest is read whole at every firing, as is a
    table that logits are multiplied by, too.
    """

    spec: StageSpec
    graph: str
    weight_bytes: int
    table_bytes: int = 0


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything the runtime needs to know; stages are in dataflow order."""

    schema_version: int
    foveal_version: str
    model: ModelInfo
    dialect: str
    precision: str
    plan: Plan = Plan()
    tokenizer: Annotated[str, msgspec.Meta(pattern=_TOKENIZERS)] | None
    stages: tuple[StageEntry, ...]
    engines: dict[str, dict[str, str]]
    files: dict[str, FileEntry]


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk whose manifest was checked, and whose files are checked before their paths are given.

    `contents` hashes them then; None: all were hashed when it was opened. `hub` is what it is on a hub, None: a folder alone.
    """

    path: Path
    manifest: Manifest
    contents: Contents | None = field(default=None, compare=False, repr=False)
    hub: HubName | None = field(default=None, compare=False)

    @property
    def name(self) -> str:
        """What its figures go by, as `bundle_name` has it."""
        return bundle_name(self.path if self.hub is None else str(self.hub))

    def check(self, *names: str) -> None:
        """Hash files that the manifest names, but for those that were; of several, as many at once as there are CPUs.

        Raises:
            BundleError: one is missing, truncated or altered.
            StorageError: one can't be read.
        """
        if self.contents is not None:
            self.contents.check_all(names)

    def file(self, name: str) -> Path:
        """The path of a file that the manifest names; it and the weights beside it are checked. Raises as `check`."""
        self.check(*(one for one in (name, data_name(name)) if one in self.manifest.files))
        return self.path / name

    def engine(self, target: str, stage: str) -> Path:
        """The path of one engine, checked as any `file`."""
        return self.file(self.manifest.engines[target][stage])

    def sidecar(self, target: str, stage: str) -> EngineSidecar:
        """The sidecar of one engine.

        Raises:
            BundleError: it is not a sidecar, or was altered.
        """
        engine = self.manifest.engines[target][stage]
        self.check(sidecar_name(engine))
        return read_sidecar(self.path / engine)

    def program(self, stage: str) -> tuple[str, str] | None:
        """Names of the program of a stage's `cpu` engine and of its weights (`contract/program.py`); None: it has none."""
        names = program_names(self.manifest.engines["cpu"][stage])
        return names if names[0] in self.manifest.files else None

    def cache_bytes_per_row(self, target: str, stage: StageSpec) -> int:
        """Bytes that one firing of a stage adds to the caches of its engine; some keep a fixed number of rows."""
        row_bytes = self.cache_row_bytes(target, stage)
        return sum(cache.rows * row_bytes[cache.name] for cache in stage.caches if cache.keeps is None and not cache.recurrent)

    def cache_row_bytes(self, target: str, stage: StageSpec) -> dict[str, int]:
        """Bytes of one row of each cache of a stage, all heads, as its engine keeps them."""
        sidecar = self.sidecar(target, stage.name)
        item = ITEM_BYTES[sidecar.cache_dtype]
        return {c.name: c.heads * width * item for c, width in zip(stage.caches, sidecar.cache_widths, strict=True)}

    def total_bytes(self) -> int:
        """Bytes of all files the manifest names."""
        return sum(entry.bytes for entry in self.manifest.files.values())

    def identity(self, target: str) -> str:
        """What a session's state depends on: a hash of the stage graphs and of a target's engines.

        Not of their sidecars, nor of programs of native steps: rows and caches are the same with them and without.
        """
        files = self._hashes("stages/", f"engines/{target}/")
        computes = [(name, sha256) for name, sha256 in files if not name.endswith(BESIDE_ENGINES)]
        return hashlib.sha256(repr((target, computes)).encode()).hexdigest()

    @property
    def graph_identity(self) -> str:
        """A hash of the stage graphs, which are the same wherever the bundle is."""
        return hashlib.sha256(repr(self._hashes("stages/")).encode()).hexdigest()

    def _hashes(self, *folders: str) -> list[tuple[str, str]]:
        files = sorted(self.manifest.files.items())
        return [(name, entry.sha256) for name, entry in files if name.startswith(folders)]


def check_target(target: str) -> None:
    """Raise ConfigError unless there is such a target."""
    if target not in TARGETS:
        raise ConfigError(f'unknown target "{target}"; expected one of {", ".join(TARGETS)}')


def list_files(directory: Path) -> dict[str, FileEntry]:
    """Size and hash of every file under `directory` except the manifest and the reports."""
    return {
        name: FileEntry(path.stat().st_size, sha256_of(path))
        for path in sorted(directory.rglob("*"))
        if path.is_file() and (name := path.relative_to(directory).as_posix()) != MANIFEST and not name.startswith("reports/")
    }


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write `manifest.json`, whole or not at all."""
    write_atomically(directory / MANIFEST, manifest_bytes(manifest))


def manifest_bytes(manifest: Manifest) -> bytes:
    """What `manifest.json` holds."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


@contextmanager
def new_bundle(path: str | Path, report: Progress) -> Iterator[Path]:
    """As `places.new_directory`, for a bundle: yield the directory to write it in; a bundle at `path` is replaced.

    Raises:
        BundleError: what is at `path` is no bundle, or it is inside one.
        ConfigError: `path` is a name on a hub.
        StorageError: nothing can be written there, or the disk is full.
    """
    if hub_name(path) is not None:
        raise ConfigError(
            f"{path} is on a hub, expected a folder to write; publish a bundle with `foveal push BUNDLE owner/name`"
        )

    def waiting() -> None:
        report(f"waiting for another command that writes {path}", 0, 1)

    with new_directory(Path(path), OWN, check_out, waiting) as directory:
        yield directory


def check_out(out: Path) -> None:
    """Raise BundleError if writing a bundle at `out` would remove something that is not one, or change a bundle around it."""
    with storage_errors(out):
        if out.exists() and not out.is_dir():
            raise BundleError(f"{out} exists and is not a bundle, but a file; choose another path or remove it yourself")
        if out.is_dir() and not (out / MANIFEST).is_file() and (found := what_is_in(out)):
            raise BundleError(
                f"{out} exists and is not a bundle; choose another path or remove it yourself (it holds {found[0].name})"
            )
        check_outside(out)


def check_outside(out: Path) -> None:
    """Raise BundleError if what is written at `out` would be inside a bundle."""
    for parent in resolve(out).parents:
        if (parent / MANIFEST).is_file() and (parent / "stages").is_dir():
            raise BundleError(f"{out} is inside the bundle {parent}; choose a path outside of it")


@storage_errors()
def open_bundle(path: str | Path, verify: Verify = "all") -> Bundle:
    """Read a bundle and check its files.

    Args:
        path: its directory; or its name on a hub, `hf:owner/name@revision`, from where it is fetched into a cache
            (docs/hub.md).
        verify: which files are hashed. `"all"`: every one, now. `"used"`: those of stages and engines when they are asked
            for, all others now. `"once"`: as used, but large files that this machine has hashed before are taken as whole if
            their path, place on the disk, size and times are the same.

    Raises:
        BundleError: not a bundle, another schema version, or a file that is missing, truncated, altered, unnamed or outside.
        StorageError: it can't be read.
        ConfigError: another `verify`.
        HubError, BackendUnavailable: a hub does not give it; huggingface_hub is not installed.
    """
    verify = checked_verify(verify)
    directory = local(path)
    manifest = open_without_contents(directory)
    for name, entry in sorted(manifest.files.items()):
        check_size(directory, name, entry)
    contents = Contents(directory, manifest.files, verify == "once")
    contents.check_all([name for name in manifest.files if verify == "all" or not name.startswith(_BY_STAGE)])
    return Bundle(directory, manifest, None if verify == "all" else contents, hub_name(path))


def checked_verify(verify: str) -> Verify:
    """A way to verify files; raises ConfigError if there is none of that name."""
    for known in VERIFY:
        if verify == known:
            return known
    raise ConfigError(f"verify is {verify!r}, expected one of {', '.join(VERIFY)}")


def bundle_name(path: str | Path) -> str:
    """What figures of a bundle go by: its folder's name, on a hub the last part of the name, with the revision if one is given.

    In a hub's cache a bundle's folder is called after a commit, which says nothing to a reader.
    """
    hub = hub_name(path)
    return Path(os.path.abspath(path)).name if hub is None else hub.short


def local(path: str | Path) -> Path:
    """Where a bundle is on this machine: one on a hub is fetched into a cache. Raises as `open_bundle`."""
    name = hub_name(path)
    if name is None:
        return Path(path)
    from .hub.bundles import fetch_bundle

    return fetch_bundle(name)


def may_be_there(path: str | Path) -> bool:
    """Whether something is at a path, or it is a name on a hub, which is not asked."""
    return hub_name(path) is not None or Path(path).exists()


@storage_errors()
def open_without_contents(path: str | Path) -> Manifest:
    """Read a bundle and check all but the contents of its files: for `runtime.preflight`, which says of each what is wrong.

    What comes back is no Bundle, so that nothing can run what was not checked.

    Raises:
        BundleError: as `open_bundle`.
    """
    directory = Path(path)
    settle(directory, OWN)
    clear_parts(directory / "reports")
    manifest = _read_manifest(directory)
    for name in manifest.files:
        _check_name(directory, name)
    _check_references(directory, manifest)
    for name in _files_on_disk(directory) - manifest.files.keys():
        raise BundleError(f"{directory / name} is not named in the manifest; remove it or convert the checkpoint again")
    return manifest


def sidecar_name(engine: str) -> str:
    """Where the sidecar of an engine is, by the engine's path in the bundle."""
    return str(PurePosixPath(engine).with_suffix(".json"))


def data_name(graph: str) -> str:
    """Where the weights of a graph are, by the graph's path in the bundle; a graph without weights has no such file."""
    return f"{graph}.data"


def chunks_name(engine: str) -> str:
    """Where the second engine of a stage is, the one for many rows, by the path of the first; not every stage has one."""
    path = PurePosixPath(engine)
    return str(path.with_name("chunks") / path.name)


def _engine_files(manifest: Manifest) -> set[str]:
    engines = {name for by_stage in manifest.engines.values() for name in by_stage.values()}
    return engines | {sidecar_name(name) for name in engines}


def _read_manifest(directory: Path) -> Manifest:
    path = directory / MANIFEST
    if not path.is_file():
        if is_being_written(directory):
            raise BundleError(f"{directory} is being written by another command; wait until that is done")
        raise BundleError(
            f"{directory} is not a bundle: there is no {MANIFEST}; make one with `foveal convert CHECKPOINT {directory}`"
        )
    data = path.read_bytes()
    try:
        version = decode(data, _Version).schema_version
        if version != SCHEMA_VERSION:
            raise BundleError(
                f"{path} has schema version {version}, this foveal reads {SCHEMA_VERSION}; convert the checkpoint again"
            )
        return decode(data, Manifest)
    except msgspec.MsgspecError as error:
        raise BundleError(f"{path} is not a foveal manifest: {error}") from error


class _Version(msgspec.Struct):
    schema_version: int


def _check_references(directory: Path, manifest: Manifest) -> None:
    """Every file, source and stage that the manifest mentions must be one that it lists."""
    mentioned = {entry.graph for entry in manifest.stages} | _engine_files(manifest)
    if manifest.tokenizer == "tokenizer.json":
        mentioned.add("tokenizer.json")
    for name in sorted(mentioned - manifest.files.keys()):
        raise BundleError(f"the manifest of {directory} mentions {name} but gives no size and hash for it; it was altered")
    names = [entry.spec.name for entry in manifest.stages]
    if problem := problem_of([entry.spec for entry in manifest.stages], f" of {directory}"):
        raise BundleError(f"{problem}; convert the checkpoint again")
    _check_logits(directory, manifest)
    _check_clocks(directory, manifest)
    for rule in manifest.model.end_rules:
        if max(rule.ids, default=0) >= manifest.model.vocab_size:
            raise BundleError(
                f"end rule {rule.name} of {directory} has ids {list(rule.ids)}, expected ids below "
                f"{manifest.model.vocab_size}; convert the checkpoint again"
            )
    for target, engines in manifest.engines.items():
        if set(engines) - {SAMPLER} != set(names):
            raise BundleError(f"{directory} has {target} engines for {sorted(engines)}, expected {sorted(names)}")


def _check_logits(directory: Path, manifest: Manifest) -> None:
    """Only the last stage gives logits, one for each token of the model; a part of a model, as comparisons cut it, none."""
    for entry in manifest.stages:
        spec, last = entry.spec, manifest.stages[-1].spec.name
        if spec.output == "logits" and spec.name != last:
            raise BundleError(
                f'stage "{spec.name}" of {directory} gives logits, expected of the last, "{last}"; convert the checkpoint again'
            )
        if spec.output == "logits" and spec.width != manifest.model.vocab_size:
            raise BundleError(
                f'stage "{spec.name}" of {directory} gives logits of {spec.width} tokens, expected the '
                f"{manifest.model.vocab_size} of the model; convert the checkpoint again"
            )


def _check_clocks(directory: Path, manifest: Manifest) -> None:
    """Tokens that fire stages are the model's."""
    for entry in manifest.stages:
        ids = () if entry.spec.clock is None else entry.spec.clock.ids
        if max(ids, default=0) >= manifest.model.vocab_size:
            raise BundleError(
                f'stage "{entry.spec.name}" of {directory} is fired by the token id {max(ids)}, expected ids below '
                f"{manifest.model.vocab_size}; convert the checkpoint again"
            )


def _check_name(directory: Path, name: str) -> None:
    """A plain relative path, whose folders are in the bundle."""
    parts = name.split("/")
    if not set(parts).isdisjoint({"", ".", ".."}) or "\\" in name or ":" in parts[0] or not name.isprintable():
        raise BundleError(f"the manifest of {directory} names {name!a}, which leaves the bundle; do not use this bundle")
    folder = directory
    for part in parts[:-1]:
        folder /= part
        if folder.is_symlink():
            raise BundleError(f"{folder} is a link to a folder, expected a folder; copy the bundle with its contents: cp -rL")


def _files_on_disk(directory: Path) -> set[str]:
    roots = [directory / "stages", directory / "engines"]
    return {path.relative_to(directory).as_posix() for root in roots for path in root.rglob("*") if not path.is_dir()}
