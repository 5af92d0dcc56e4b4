"""Whatever file of a bundle was altered: `check` answers refuse with exit code 3, commands that would use it end with 1."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch
from specimens import Zoo

from foveal.bundle import list_files, write_manifest
from foveal.models.checkpoint import save_checkpoint

FILES = (
    "engines/cpu/1.onnx",
    "engines/cpu/1.onnx.data",
    "engines/cpu/1.json",
    "stages/1.onnx",
    "stages/1.onnx.data",
    "tokenizer.json",
)
TOKENIZER = Path(__file__).parent.parent.parent / "models/checkpoints/vanilla/tokenizer.json"


def flip(path: Path) -> None:
    """One bit."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def truncate(path: Path) -> None:
    """The end is missing, as after a download that broke off."""
    path.write_bytes(path.read_bytes()[:-3])


@pytest.fixture
def bundle(zoo: Zoo, tmp_path: Path) -> Path:
    """A whole one, with a tokenizer."""
    whole = zoo["vanilla"].bundle
    shutil.copytree(whole.path, tmp_path / "b", ignore=shutil.ignore_patterns("reports"))
    shutil.copyfile(TOKENIZER, tmp_path / "b" / "tokenizer.json")
    manifest = msgspec.structs.replace(whole.manifest, tokenizer="tokenizer.json", files=list_files(tmp_path / "b"))
    write_manifest(tmp_path / "b", manifest)
    return tmp_path / "b"


@pytest.fixture
def checkpoint(zoo: Zoo, tmp_path: Path) -> Path:
    """The one it was made from."""
    save_checkpoint(zoo["vanilla"].model, tmp_path / "c", torch.float32)
    return tmp_path / "c"


@pytest.mark.parametrize(("alter", "said"), [(flip, "SHA-256 differs"), (truncate, "truncated"), (Path.unlink, "is missing")])
@pytest.mark.parametrize("file", FILES)
def test_an_altered_file(foveal, bundle: Path, checkpoint: Path, file: str, alter: Callable[[Path], None], said: str) -> None:
    """It is named, and nothing of it is used."""
    assert foveal("check", bundle)[0] == 0
    alter(bundle / file)
    code, out, _ = foveal("check", bundle, "--json")
    assert (code, '"answer":"refuse"' in out, said in out) == (3, True, True), out
    if alter is flip and file.startswith("stages/"):  # of which `generate` reads nothing
        assert foveal("generate", bundle, "--ids", "1 2", "--max-new-tokens", "1")[0] == 0
    for command in (["generate", bundle, "abc", "--verify", "all"], ["verify", bundle, "--checkpoint", checkpoint]):
        code, _, err = foveal(*command)
        assert (code, file in err, said in err or "bytes, expected" in err) == (1, True, True), err
        assert len(err.strip().splitlines()) <= 3


def test_a_manifest_that_names_another_hash(foveal, bundle: Path) -> None:
    """Nobody can tell which of the two was altered."""
    manifest = bundle / "manifest.json"
    text = manifest.read_text(encoding="utf-8")
    at = text.index('"sha256": "') + len('"sha256": "')
    manifest.write_text(text[:at] + ("0" if text[at] != "0" else "1") + text[at + 1 :], encoding="utf-8")
    assert foveal("check", bundle)[0] == 3
    assert foveal("generate", bundle, "abc")[0] == 1


def test_a_manifest_that_is_none(foveal, bundle: Path, checkpoint: Path) -> None:
    """Then there is no bundle to answer for."""
    flip(bundle / "manifest.json")
    truncate(bundle / "manifest.json")
    for command in (["check", bundle], ["generate", bundle, "abc"], ["verify", bundle, "--checkpoint", checkpoint]):
        code, _, err = foveal(*command)
        assert (code, "manifest.json is not a foveal manifest" in " ".join(err.split())) == (1, True), err


def test_swapped_engines_are_not_loaded(foveal, zoo: Zoo, tmp_path: Path) -> None:
    """With all hashes put right: exit code 3, and what mends it; `verify` says what differs, with its own exit code."""
    whole = zoo["nested"].bundle
    shutil.copytree(whole.path, tmp_path / "b", ignore=shutil.ignore_patterns("reports"))
    for suffix in (".onnx", ".onnx.data"):
        one, other = (tmp_path / "b" / "engines/cpu" / f"{stage}{suffix}" for stage in ("2.pre", "2.post"))
        one.rename(tmp_path / "aside")
        other.rename(one)
        (tmp_path / "aside").rename(other)
    write_manifest(tmp_path / "b", msgspec.structs.replace(whole.manifest, files=list_files(tmp_path / "b")))
    save_checkpoint(zoo["nested"].model, tmp_path / "c", torch.float32)
    for command in (["check", tmp_path / "b"], ["bench", tmp_path / "b"]):
        code, out, err = foveal(*command)
        said = " ".join((out + err).split())
        assert (code, "is not the engine that" in said, "foveal build" in said) == (3, True, True), said
    code, _, err = foveal("verify", tmp_path / "b", "--checkpoint", tmp_path / "c")
    assert (code, 'cpu engine of stage "2.pre"' in " ".join(err.split())) == (2, True), err
