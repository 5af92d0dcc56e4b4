"""A checkpoint on a hub: of its repository the files that readers read, and no others."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ...bundle import CHAT_FILES, MANIFEST
from ...errors import CheckpointError, FovealError
from ...hub.names import HubName, Source
from ...hub.repository import Repository
from ...progress import Progress, silent
from ..weight_files import INDEX, PAGE, SUFFIXES, USUAL, kinds_among, read_index, weights_among
from .trax import WEIGHT_FILES

BESIDE = ("config.json", "tokenizer.json", *CHAT_FILES)
"""What is read beside weights."""


def fetch_checkpoint(name: HubName, report: Progress | None = None) -> tuple[Path, Source]:
    """Bring a checkpoint into huggingface_hub's cache.

    Of a folder these are the weights that a reader would take from it (`model.safetensors` or an index and its shards, else all
    files that are called like weights), and what is read beside them: `config.json`, the tokenizer and how chats are written.

    Returns:
        Its folder or file, as it was asked for, and where it is from.

    Raises:
        CheckpointError: there are no weights that foveal reads, or several; what is there is named.
        HubError, ConfigError, StorageError, BackendUnavailable: as `Repository`.
    """
    repository = Repository(name)
    is_file = name.path in repository.sizes
    folder, _, file = name.path.rpartition("/") if is_file else (name.path, "", "")
    names = repository.inside(folder)
    weights = [file] if is_file else _weights(repository, name, names)
    start = f"{folder}/" if folder else ""
    beside = [one for one in names if one in BESIDE or (is_file and one in WEIGHT_FILES and file in WEIGHT_FILES)]
    weights += _shards(repository, name, start, weights[0])
    place = repository.fetch([f"{start}{one}" for one in {*weights, *beside}], report)
    return place / name.path, repository.source()


def _weights(repository: Repository, name: HubName, names: Sequence[str]) -> list[str]:
    """Those of a folder; raises CheckpointError if there are none, or several files of which one is to be chosen."""
    found = weights_among(names)
    if USUAL not in found and (of_trax := [one for one in WEIGHT_FILES if one in names]):
        return of_trax
    if not found:
        raise CheckpointError(_without_weights(repository, name, names))
    if len(found) > 1:
        raise CheckpointError(
            f"{name} has {len(found)} files of weights ({', '.join(found[:8])}), expected one; say which: "
            f"{name._replace(path=f'{name.path}/{found[0]}'.lstrip('/'), entry=None)}"
        )
    return found


def _shards(repository: Repository, name: HubName, start: str, weights: str) -> list[str]:
    """Of an index of shards, their names."""
    if not weights.endswith(INDEX):
        return []
    shards = sorted(set(read_index(repository.fetch([f"{start}{weights}"], silent) / f"{start}{weights}").values()))
    absent = next((one for one in shards if f"{start}{one}" not in repository.sizes), None)
    if absent is not None:
        raise CheckpointError(f"{weights} of {name} names the shard {absent}, which is not in the repository; it is not whole")
    return shards


def _without_weights(repository: Repository, name: HubName, names: Collection[str]) -> str:
    """What is there instead, and where to look."""
    start = f"{name.path}/" if name.path else ""
    within = sorted(path for path in repository.sizes if path.startswith(start))
    if not within:
        tops = sorted({path.partition("/")[0] for path in repository.sizes})
        return f"{name}: there is no {name.path or 'file'} in the repository, which has {', '.join(tops[:8]) or 'no files'}"
    if MANIFEST in names and any(path.startswith(f"{start}stages/") for path in within):
        return f"{name} is a bundle already, not a checkpoint: run it, for instance `foveal generate {name}`"
    advice = ""
    folders = sorted({path.rpartition("/")[0] for path in within if weights_among([path.rpartition("/")[2]])})
    if folders:
        advice = f"; there are some in {', '.join(folders[:4])}: {name._replace(path=folders[0])}"
    elif any(path.endswith(".gguf") for path in within):
        base = repository.card().base_model
        advice = "; give the checkpoint that the GGUF was made from" + (f", which its card says is hf:{base}" if base else "")
    found = kinds_among(names) or f"the folders {', '.join(sorted({path.partition('/')[0] for path in within}))}"
    return f"{name} has no weights that foveal reads, only {found}; expected *{', *'.join(SUFFIXES)}{advice}; {PAGE}"


@contextmanager
def said_of(name: HubName, path: Path) -> Iterator[None]:
    """Errors of readers speak of the name, not of the place in the cache; and say how a file of the repository is changed."""
    try:
        yield
    except FovealError as error:
        text = str(error).replace(str(path), str(name))
        if "config.json" in text:
            text += f"; to change a file of it: `hf download {name.repository} --local-dir DIR`, and convert DIR"
        error.args = (text, *error.args[1:])
        raise
