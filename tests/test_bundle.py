"""A bundle is read only if it is whole and ours."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from specimens import Zoo

from foveal import BundleError, ConfigError, EngineMismatchError, build, load, open_bundle
from foveal.files import sha256_of

Edit = Callable[[dict[str, Any]], None]


@pytest.fixture
def bundle(zoo: Zoo, tmp_path: Path) -> Path:
    """A bundle of our own to damage."""
    return Path(shutil.copytree(zoo["attention"].bundle.path, tmp_path / "b"))


def edit(bundle: Path, change: Edit) -> None:
    """Change the manifest."""
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def test_a_whole_bundle_opens(bundle: Path) -> None:
    """The manifest is there as it was written, with every file's size and hash."""
    opened = open_bundle(bundle)
    assert [entry.spec.name for entry in opened.manifest.stages] == ["1.pre", "3", "1.post"]
    assert opened.total_bytes() == sum(entry.bytes for entry in opened.manifest.files.values())
    assert opened.sidecar("cpu", "3").cache_widths == (16,) * 4  # 10, widened to the kernel's step of 8


def test_another_directory_is_no_bundle(tmp_path: Path) -> None:
    """The message says how to make one."""
    with pytest.raises(BundleError, match=r"is not a bundle: there is no manifest.json; make one with `foveal convert"):
        open_bundle(tmp_path)


def test_a_truncated_file(bundle: Path) -> None:
    """Both sizes are named."""
    path = bundle / "stages" / "3.onnx.data"
    data = path.read_bytes()
    path.write_bytes(data[:-7])
    with pytest.raises(BundleError, match=rf"has {len(data) - 7} bytes, expected {len(data)}; it is truncated"):
        open_bundle(bundle)


def test_an_altered_file(bundle: Path) -> None:
    """One flipped bit is enough."""
    path = bundle / "engines" / "cpu" / "3.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(BundleError, match=r"3\.onnx was altered: its SHA-256 differs"):
        open_bundle(bundle)


def test_a_missing_file(bundle: Path) -> None:
    """It is named."""
    (bundle / "stages" / "3.onnx").unlink()
    with pytest.raises(BundleError, match=r"3\.onnx is missing; copy the bundle again"):
        open_bundle(bundle)


def test_a_file_nobody_named(bundle: Path) -> None:
    """Nothing may be slipped in beside the engines."""
    (bundle / "engines" / "cpu" / "other.onnx").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"other\.onnx is not named in the manifest"):
        open_bundle(bundle)


ESCAPES = ["../outside", "/etc/passwd", "stages/../../outside", "stages\\..\\outside", "c:x"]
NOT_PLAIN = ["", ".", "stages//x", "stages/", "a\0b", "a\nb"]


@pytest.mark.parametrize("name", ESCAPES + NOT_PLAIN)
def test_a_path_that_leaves_the_bundle(bundle: Path, name: str) -> None:
    """Escapes are refused before anything is read."""
    edit(bundle, lambda manifest: manifest["files"].update({name: {"bytes": 1, "sha256": "0" * 64}}))
    with pytest.raises(BundleError, match="leaves the bundle; do not use this bundle"):
        open_bundle(bundle)


def linked(bundle: Path, hub: Path) -> Path:
    """A bundle as the caches of model hubs keep it: every file is a link to a blob outside, named after its hash."""
    for file in bundle.rglob("*"):
        if file.is_file():
            blob = hub / "blobs" / sha256_of(file)
            blob.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, blob)
            link = hub / "snapshots" / "1" / file.relative_to(bundle)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(blob, link.parent))
    return hub / "snapshots" / "1"


def test_a_bundle_of_links(bundle: Path, tmp_path: Path) -> None:
    """It runs, is built from and is added to; what comes of it holds no links, and its blobs are as they were."""
    linked_bundle = linked(bundle, tmp_path / "hub")
    blobs = {path: path.read_bytes() for path in (tmp_path / "hub" / "blobs").iterdir()}
    ids = np.arange(8)[None] % 5
    expected = load(bundle, threads=1).session().advance(ids)
    np.testing.assert_array_equal(load(linked_bundle, threads=1).session().advance(ids), expected)
    build(linked_bundle, tmp_path / "w8", "w8")
    build(linked_bundle, target="cuda")
    np.testing.assert_array_equal(load(linked_bundle, threads=1).session().advance(ids), expected)
    assert not any(path.is_symlink() for where in (tmp_path / "w8", linked_bundle) for path in where.rglob("*"))
    assert {path: path.read_bytes() for path in (tmp_path / "hub" / "blobs").iterdir()} == blobs


@pytest.mark.parametrize("file", ["manifest.json", "stages/3.onnx.data", "engines/cpu/3.json"])
def test_a_link_to_something_else(bundle: Path, tmp_path: Path, file: str) -> None:
    """Where it leads does not matter, what is there does; a link to nothing is a file that is missing."""
    linked_bundle = linked(bundle, tmp_path / "hub")
    blob = Path(os.path.realpath(linked_bundle / file))
    blob.write_bytes(blob.read_bytes()[:-1] + b"?")
    with pytest.raises(BundleError, match="was altered|is not a foveal manifest"):
        open_bundle(linked_bundle)
    blob.unlink()
    with pytest.raises(BundleError, match="is missing|is not a bundle"):
        open_bundle(linked_bundle)


def test_a_linked_directory(bundle: Path, tmp_path: Path) -> None:
    """Files under it could not be told from others; the message says how to copy it."""
    shutil.move(bundle / "stages", tmp_path / "elsewhere")
    (bundle / "stages").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(
        BundleError, match=r"is a link to a folder, expected a folder; copy the bundle with its contents: cp -rL"
    ):
        open_bundle(bundle)


def test_another_schema_version(bundle: Path) -> None:
    """Both versions are named."""
    edit(bundle, lambda manifest: manifest.update(schema_version=99))
    with pytest.raises(BundleError, match="has schema version 99, this foveal reads 2; convert the checkpoint again"):
        open_bundle(bundle)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: m.update(surprise=1), "unknown field `surprise`"),
        (lambda m: m.pop("stages"), "missing required field `stages`"),
        (lambda m: m["stages"][0]["spec"].update(stride="one"), "Expected `int`"),
    ],
)
def test_a_manifest_that_is_none(bundle: Path, change: Edit, reason: str) -> None:
    """The schema is strict and says where it failed."""
    edit(bundle, change)
    with pytest.raises(BundleError, match=f"is not a foveal manifest: .*{reason}"):
        open_bundle(bundle)


def test_a_manifest_that_is_no_json(bundle: Path) -> None:
    """Cut in the middle."""
    path = bundle / "manifest.json"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BundleError, match="is not a foveal manifest"):
        open_bundle(bundle)


def test_a_stage_that_reads_what_is_not_there_yet(bundle: Path) -> None:
    """Dataflow goes one way."""
    edit(bundle, lambda manifest: manifest["stages"][1]["spec"]["inputs"][0].update(source="1.post"))
    with pytest.raises(BundleError, match=r'stage "3" .* reads "1\.post", expected one of the stages before it'):
        open_bundle(bundle)


def test_engines_for_some_stages_only(bundle: Path) -> None:
    """A target has an engine for every stage."""
    edit(bundle, lambda manifest: manifest["engines"]["cpu"].pop("3"))
    with pytest.raises(BundleError, match=r"has cpu engines for .* expected"):
        open_bundle(bundle)


def test_an_unlisted_graph(bundle: Path) -> None:
    """Whatever is used must have a hash."""
    edit(bundle, lambda manifest: manifest["files"].pop("stages/3.onnx"))
    with pytest.raises(BundleError, match=r"mentions stages/3\.onnx but gives no size and hash"):
        open_bundle(bundle)


def test_unknown_targets(bundle: Path) -> None:
    """An unknown target, and ones this bundle has no engines for."""
    with pytest.raises(ConfigError, match='unknown target "tpu"; expected one of cpu, cuda, tensorrt, tensorrt-rtx'):
        load(bundle, target="tpu")
    with pytest.raises(ConfigError, match=r"only for: cpu; add them: foveal build .*b --target cuda$"):
        load(bundle, target="cuda")
    shutil.rmtree(bundle / "engines")
    edit(bundle, lambda m: m.update(engines={}, files={k: v for k, v in m["files"].items() if "engines" not in k}))
    with pytest.raises(ConfigError, match="has no engines for cpu, only for: none"):
        load(bundle)


def test_a_stage_that_reads_rows_of_another_width(bundle: Path) -> None:
    """Both widths and both stages are named."""
    edit(bundle, lambda manifest: manifest["stages"][1]["spec"]["inputs"][0].update(width=25))
    with pytest.raises(
        BundleError, match=r'stage "3" of .* reads rows of width 25 from "1\.pre", which gives them 24 wide; convert the'
    ):
        open_bundle(bundle)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"caches": [{"name": "0.e", "heads": 3, "width": 10}, {"name": "0.value", "heads": 3, "width": 10}] * 2}, "0.e"),
        ({"inputs": [{"kind": "stream", "source": "1.pre", "width": 24}]}, "stream"),
    ],
)
def test_a_graph_that_is_not_what_the_manifest_says(bundle: Path, changes: dict[str, Any], named: str) -> None:
    """What the engine has no tensor for is said in one line, when a session binds it or with its first tokens."""
    edit(bundle, lambda manifest: manifest["stages"][1]["spec"].update(changes))
    said = 'the engine of stage "3" does not run as the manifest describes it: '
    with pytest.raises(EngineMismatchError, match=rf"^{said}.*{named}.*; convert the checkpoint again$"):
        load(bundle, threads=1, overlap=False).session().advance([[1, 2, 3]])


@pytest.mark.parametrize(
    ("stage", "changes", "message"),
    [
        (
            -1,
            {"width": 2**31},
            r'stage "1\.post" of .* gives logits of 2147483648 tokens, expected the 41 of the model; convert',
        ),
        (0, {"output": "logits"}, r'stage "1\.pre" of .* gives logits, expected of the last, "1\.post"; convert'),
    ],
)
def test_logits_are_the_last_stages_and_of_the_vocabulary(bundle: Path, stage: int, changes: dict, message: str) -> None:
    """Anything else is found before memory is asked for."""
    edit(bundle, lambda manifest: manifest["stages"][stage]["spec"].update(changes))
    with pytest.raises(BundleError, match=message):
        open_bundle(bundle)


@pytest.mark.parametrize(
    ("stage", "changes"),
    [("3", {"heads": 4}), ("3", {"width": 11}), ("3", {"name": "2.key"}), ("5", {}), ("3", {"keeps": 8})],
)
def test_a_stage_that_borrows_what_is_not_there(bundle: Path, stage: str, changes: dict[str, object]) -> None:
    """Another stage, or another cache than the stage has; the cache is named."""

    def borrow(manifest: dict[str, Any]) -> None:
        cache = {**manifest["stages"][1]["spec"]["caches"][0], **changes}
        manifest["stages"][2]["spec"]["borrows"] = [{"stage": stage, "cache": cache}]

    edit(bundle, borrow)
    name = changes.get("name", "0.key")
    with pytest.raises(BundleError, match=rf'stage "1\.post" of .* borrows {name} of "{stage}", which has no such cache; con'):
        open_bundle(bundle)


def test_a_stage_that_borrows_what_is_there(bundle: Path) -> None:
    """A cache as its stage declares it."""

    def borrow(manifest: dict[str, Any]) -> None:
        manifest["stages"][2]["spec"]["borrows"] = [{"stage": "3", "cache": manifest["stages"][1]["spec"]["caches"][1]}]

    edit(bundle, borrow)
    (borrowed,) = open_bundle(bundle).manifest.stages[2].spec.borrows
    assert borrowed.name == "borrowed.3.0.value"


def test_bytes_of_the_caches_that_grow(bundle: Path) -> None:
    """A firing adds a row to each, as wide as the engine keeps it; a cache that keeps so many rows grows no further."""
    opened = open_bundle(bundle)
    spec = opened.manifest.stages[1].spec
    assert opened.cache_bytes_per_row("cpu", spec) == 2 * 2 * 3 * 16 * 4  # layers, keys and values, heads, width, bytes
    kept = [msgspec.structs.replace(cache, keeps=8) for cache in spec.caches[:2]]
    several = msgspec.structs.replace(spec.caches[2], rows=5)
    changed = msgspec.structs.replace(spec, caches=(*kept, several, spec.caches[3]))
    assert opened.cache_bytes_per_row("cpu", changed) == (5 + 1) * 3 * 16 * 4
