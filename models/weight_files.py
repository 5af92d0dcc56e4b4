"""Which files of a directory are a checkpoint's weights; and what a file is that holds none."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Collection
from pathlib import Path

from ..errors import CheckpointError

USUAL = "model.safetensors"
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
INDEX = ".index.json"
PAGE = "docs/checkpoints.md has an example of every layout"

_BESIDE = re.compile(r"optim|sched|scaler|rng_state|random_states|training_args|trainer_state")
"""What trainers put beside the weights."""
_SHARD = re.compile(r"-\d+-of-\d+\.")
_OTHERS = {
    ".gguf": "GGUF",
    ".onnx": "ONNX",
    ".msgpack": "Flax",
    ".h5": "TensorFlow or Keras",
    ".tflite": "TensorFlow Lite",
    ".npz": "NumPy",
    ".mlmodel": "Core ML",
    ".tar": "tar archive",
    ".gz": "gzip",
    ".zip": "zip archive",
    ".engine": "TensorRT engine",
}
_HEADS = (
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself; fetch it with `git lfs pull`"),
    (b"GGUF", "a GGUF file, which is quantised for llama.cpp; give the checkpoint it was made from"),
    (b"\x89HDF", "an HDF5 file of TensorFlow or Keras; give PyTorch's weights"),
    (b"\x1f\x8b", "a gzip archive; unpack it"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it"),
    (b"\xfd7zXZ", "an xz archive; unpack it"),
    (b"BZh", "a bzip2 archive; unpack it"),
)


def weight_files(path: Path) -> list[Path]:
    """The candidates: the path itself, or in a folder those of `weights_among`."""
    if not path.is_dir():
        return [path] if path.is_file() else []
    return [path / name for name in weights_among([file.name for file in path.iterdir() if file.is_file()])]


def weights_among(names: Collection[str]) -> list[str]:
    """Of the names of a folder's files those of weights: the usual one, an index of shards, or all that are called like it."""
    indices = sorted((name for name in names if name.endswith(INDEX)), reverse=True)
    if USUAL in names or indices:
        return [USUAL if USUAL in names else next((name for name in indices if "safetensors" in name), indices[0])]
    return sorted(name for name in names if Path(name).suffix in SUFFIXES and not _BESIDE.search(name.lower()))


def require_weights(path: Path) -> Path:
    """The one file of weights, or index of shards, of a directory or file.

    Raises:
        CheckpointError: none or several; or the file is something else, which is named.
    """
    files = weight_files(path)
    if not files:
        raise CheckpointError(
            f"no weights in {path}{_others(path)}; expected {USUAL}, or one file *{', *'.join(SUFFIXES[1:])}; {PAGE}"
        )
    if all(_SHARD.search(file.name) for file in files) and path.is_dir():
        raise CheckpointError(f"{path} has {len(files)} shards of weights but no *{INDEX} that says what is in each; add it")
    if len(files) > 1:
        found = ", ".join(file.name for file in files)
        raise CheckpointError(
            f"{path} has {len(files)} files of weights ({found}), expected one; give the path of the file itself"
        )
    if files[0].suffix == ".json" and not files[0].name.endswith(INDEX):
        raise CheckpointError(f"{files[0]} is no file of weights; give the directory, its file of weights, or its *{INDEX}")
    what = foreign_kind(files[0])
    if what:
        raise CheckpointError(f"{files[0]} is {what}")
    return files[0]


def read_index(index: Path) -> dict[str, str]:
    """Names of tensors -> file names of shards, as `*.index.json` has them; raises CheckpointError if it does not."""
    try:
        said = json.loads(index.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{index} is not JSON: {error}") from error
    places = said.get("weight_map") if isinstance(said, dict) else None
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise CheckpointError(f'{index} has no "weight_map", expected an object of names of tensors -> names of files')
    outside = [name for name in places.values() if Path(name).name != name or name in ("", ".", "..") or "\0" in name]
    if outside:
        raise CheckpointError(f"{index} names the shard {outside[0]!r}, expected the name of a file beside it")
    return places


def _others(path: Path) -> str:
    """What lies there instead."""
    if not path.is_dir():
        return ""
    kinds = kinds_among([file.name for file in path.iterdir() if file.is_file()])
    return f", only {kinds}, which foveal does not read" if kinds else ""


def kinds_among(names: Collection[str]) -> str:
    """Files that are no weights foveal reads, in words; those of other kinds first."""
    files = sorted(
        (Path(name) for name in names if name != "config.json" and not name.startswith(".")),
        key=lambda file: (file.suffix not in _OTHERS, file.name),
    )
    kinds = [f"{file.name} ({_OTHERS[file.suffix]})" if file.suffix in _OTHERS else file.name for file in files]
    more = f" and {len(kinds) - 6} more" if len(kinds) > 6 else ""
    return f"{', '.join(kinds[:6])}{more}"


def is_safetensors(head: bytes) -> bool:
    """Whether a file begins as safetensors do: the length of a JSON header (8 bytes, the highest of them zero), and the header.

    The lowest byte of a length may be any, that with which pickles, web pages or JSON begin among them.
    """
    return head[6:9] == b"\0\0{"


def foreign_kind(path: Path) -> str:
    """What a file is that is neither weights nor a configuration, and what to do; empty if it may be one."""
    with path.open("rb") as file:
        head = file.read(512)
    if is_safetensors(head):
        return ""
    if not head:
        return "empty (0 bytes); fetch or save it again"
    for sign, what in _HEADS:
        if head.startswith(sign):
            return what
    text = head.lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<")):
        return "a web page, not weights: the download gave an error or asked to sign in; fetch it again"
    if head[257:262] == b"ustar" and head[:2] != b"PK" and head[:1] != b"\x80":
        return "a tar archive; unpack it"
    if text.startswith((b"{", b"[")) and path.suffix != ".json":
        return "JSON, not weights: perhaps the answer of a server; fetch the file again"
    if path.suffix == ".onnx":
        return "an ONNX graph, from which foveal can't tell stages; give the checkpoint it was made from"
    if head[:4] == b"PK\x03\x04":
        return _zip_is(path)
    if path.suffix == ".safetensors" and head[:1] == b"\x80":
        return "a pickle, expected safetensors; name it .pt to have it read with weights_only=True"
    return ""


def _zip_is(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return ""  # cut short: reading it says so
    if any(name.endswith("constants.pkl") for name in names):
        return "a TorchScript archive, which is a program; save model.state_dict() instead"
    if any(name.endswith("data.pkl") for name in names):
        return (
            "a pickle, expected safetensors; name it .pt to have it read with weights_only=True"
            if path.suffix == ".safetensors"
            else ""
        )
    if any(name.endswith((".json", "archive_format")) and "model" in name for name in names) and path.suffix == ".pt2":
        return "an exported program (torch.export); save model.state_dict() instead"
    return "a zip archive; unpack it"
