"""Which stages run natively, how that is asked for, and what is said where it can't be."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from time import sleep
from typing import Any

import msgspec
import numpy as np
import pytest
from native_reference import ReferenceLibrary
from precisions import PrecisionZoo
from specimens import Zoo, random_ids

from foveal.bundle import Bundle, list_files, open_bundle, write_manifest
from foveal.contract.program import MOST_ROWS
from foveal.errors import BackendUnavailable, BundleError, ConfigError, EngineMismatchError, InputError
from foveal.export import build
from foveal.runtime import load, native_engines
from foveal.runtime.engines import native_library, onnxruntime
from foveal.runtime.model import Model
from foveal.runtime.native_engines import runs_on
from foveal.runtime.snapshots import Snapshot


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that is there, in numpy."""
    monkeypatch.setattr(native_engines, "native_library", ReferenceLibrary)
    monkeypatch.setattr("foveal.runtime.model.native_library", ReferenceLibrary)


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """No library."""

    def none() -> None:
        raise BackendUnavailable("foveal-native is not installed")

    monkeypatch.setattr(native_engines, "native_library", none)


@pytest.fixture
def own(zoo: Zoo, tmp_path: Path) -> Path:
    """A bundle that may be changed."""
    return shutil.copytree(zoo["nested"].bundle.path, tmp_path / "b")


def opened(model: Model) -> set[str]:
    """The stages of which ONNX Runtime has a graph."""
    return {engine.spec.name for engine in model.host_engines if engine.is_open}


def change(path: Path, name: str, how: Callable[[bytes], bytes]) -> Bundle:
    """Another content of a file, which the manifest knows."""
    file = path / "engines" / "cpu" / name
    manifest, before = open_bundle(path).manifest, file.read_bytes()
    file.write_bytes(how(before))
    assert file.read_bytes() != before
    write_manifest(path, msgspec.structs.replace(manifest, files=list_files(path)))
    return open_bundle(path)


@pytest.mark.usefixtures("installed")
def test_stages_run_natively_where_the_library_is_installed(zoo: Zoo) -> None:
    """Unless that is not wanted."""
    bundle = zoo["nested"].bundle
    names = {entry.spec.name for entry in bundle.manifest.stages}
    assert load(bundle, threads=1, overlap=False).native_stages == names
    assert load(bundle, threads=1, overlap=False, native=True).native_stages == names
    without = load(bundle, threads=1, overlap=False, native=False)
    assert without.native_stages == set()
    assert set(without.runs_on.values()) == {"onnxruntime: loaded with native=False (--no-native)"}
    assert runs_on(bundle) == dict.fromkeys(names, "native (numpy)")


@pytest.mark.usefixtures("missing")
def test_without_the_library_stages_run_in_their_graphs(zoo: Zoo) -> None:
    """Which is said, and refused if native steps were asked for."""
    bundle = zoo["nested"].bundle
    model = load(bundle, threads=1, overlap=False)
    assert model.native_stages == set()
    assert set(model.runs_on.values()) == {"onnxruntime: foveal-native is not installed"}
    assert model.session().advance(random_ids(1, 3)).shape == (1, 3, 41)
    with pytest.raises(BackendUnavailable, match="foveal-native is not installed"):
        load(bundle, threads=1, overlap=False, native=True)


def test_a_library_of_another_version_is_as_good_as_none(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not called; the message says both versions."""

    class Other:
        @staticmethod
        def fv_abi() -> int:
            return 999

    monkeypatch.setattr(native_library.ctypes, "CDLL", lambda path: Other)
    with pytest.raises(BackendUnavailable, match=r"has version 999 of its interface, expected \d+; pip install ./native"):
        native_library.NativeLibrary(Path("lib.so"))


def test_a_file_that_is_no_library_is_said(tmp_path: Path) -> None:
    """With the reason of the loader."""
    (tmp_path / "lib.so").write_bytes(b"no library")
    with pytest.raises(BackendUnavailable, match="foveal-native can't be loaded from .*lib.so"):
        native_library.NativeLibrary(tmp_path / "lib.so")


@pytest.mark.usefixtures("installed")
def test_bundles_without_programs_load(own: Path) -> None:
    """As those of earlier versions, or built so."""
    for file in (own / "engines" / "cpu").glob("*.native*"):
        file.unlink()
    manifest = msgspec.json.decode((own / "manifest.json").read_bytes())
    manifest["files"] = {name: entry for name, entry in manifest["files"].items() if ".native" not in name}
    (own / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    model = load(own, threads=1, overlap=False)
    assert model.native_stages == set()
    assert set(model.runs_on.values()) == {"onnxruntime: built without programs"}
    with pytest.raises(
        ConfigError, match=r"does not run natively as a whole \(1\.pre: built without programs; .*build it again"
    ):
        load(own, threads=1, overlap=False, native=True)


@pytest.mark.usefixtures("installed")
def test_engines_that_are_built_without_programs_say_so(precise: PrecisionZoo, tmp_path: Path) -> None:
    """And others of the same plan have theirs."""
    found = precise["vanilla"]
    built = build(found.full, tmp_path / "b", "int8", calibration=found.calibration, native=False)
    assert set(runs_on(built).values()) == {"onnxruntime: built with native=False (--no-native)"}
    assert set(runs_on(build(built)).values()) == {"native (numpy)"}


@pytest.mark.parametrize("native", [False, True])
def test_other_targets_have_no_native_steps(zoo: Zoo, tmp_path: Path, native: bool) -> None:
    """Neither to build nor to load."""
    with pytest.raises(ConfigError, match="only cpu engines have programs of native steps; leave it out"):
        build(zoo["vanilla"].bundle, tmp_path / "b", "fp32", "cuda", native=native)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("damage", [lambda data: b"{}", lambda data: data[:-9], lambda data: b"\xff" + data])
def test_a_file_that_is_no_program_is_refused(own: Path, damage: Callable[[bytes], bytes]) -> None:
    """Even if the manifest knows it."""
    bundle = change(own, "1.pre.native.json", damage)
    with pytest.raises(BundleError, match=r"1\.pre\.native\.json is not a program: .*; build the engines again"):
        load(bundle, threads=1, overlap=False)


@pytest.mark.usefixtures("installed")
def test_weights_of_another_program_are_refused(own: Path) -> None:
    """By their size, and by their hash."""
    for how in (lambda data: data + bytes(64), lambda data: bytes(len(data))):
        bundle = change(own, "1.pre.native", how)
        with pytest.raises(BundleError, match=r"1\.pre\.native holds other weights than .* was written for"):
            load(bundle, threads=1, overlap=False)


@pytest.mark.usefixtures("installed")
def test_a_program_of_another_engine_is_refused(own: Path) -> None:
    """Its graph would go on otherwise."""
    bundle = change(own, "1.pre.native.json", lambda data: data.replace(b'"graph_sha256":"', b'"graph_sha256":"0', 1))
    with pytest.raises(EngineMismatchError, match='the program of stage "1.pre" was made from another engine'):
        load(bundle, threads=1, overlap=False)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("what", "other", "said"),
    [
        (b'"most_rows":16', b'"most_rows":17', "takes 17 rows, expected 1 to 16"),
        (b'"version":1', b'"version":2', "has version 2, this foveal reads 1"),
        (b'"stage":"1.pre"', b'"stage":"2.pre"', 'is of stage "2.pre", expected "1.pre"'),
        (b'"table":0', b'"table":1', "at a multiple of 64"),
    ],
)
def test_a_program_that_does_not_keep_to_its_rules_is_refused(own: Path, what: bytes, other: bytes, said: str) -> None:
    """Before anything of it is used."""
    bundle = change(own, "1.pre.native.json", lambda data: data.replace(what, other, 1))
    with pytest.raises(EngineMismatchError, match=rf"its program can't be followed, .*{said}"):
        load(bundle, threads=1, overlap=False)


@pytest.mark.usefixtures("installed")
def test_graphs_are_opened_by_the_first_call_that_is_too_long_for_the_programs(zoo: Zoo) -> None:
    """Not by loading, nor by decoding; of a stage that fires every k tokens by a call that is k times as long."""
    bundle = zoo["nested"].bundle
    model = load(bundle, threads=1, overlap=False)
    assert opened(model) == set()
    model.session().advance(random_ids(1, MOST_ROWS))
    assert opened(model) == set()
    model.session().advance(random_ids(1, MOST_ROWS + 1))
    finest = {spec.name for spec in model.specs if spec.stride == 1}
    assert opened(model) == finest < model.native_stages
    assert opened(load(bundle, threads=1, overlap=False, native=False)) == {entry.spec.name for entry in bundle.manifest.stages}


@pytest.mark.usefixtures("installed")
def test_a_graph_for_many_rows_is_opened_alone(precise: PrecisionZoo, tmp_path: Path) -> None:
    """A long prompt does not need the other one; `open_graphs` has both."""
    model = load(build(precise["vanilla"].full, tmp_path / "b", "w8"), threads=1, overlap=False)
    graph = model.host_engines[0]
    assert graph.sidecar.chunks is not None
    model.session().advance(random_ids(1, graph.sidecar.chunks.least_rows))
    assert (graph._session, graph.is_open) == (None, True)
    model.open_graphs()
    assert graph._session is not None


@pytest.mark.usefixtures("installed")
def test_a_graph_is_opened_once_for_all_threads(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that come meanwhile wait, and run on the same one."""
    model, asked = load(zoo["vanilla"].bundle, threads=1, overlap=False), []
    before, barrier = onnxruntime.open_session, Barrier(4)

    def open_slowly(path: Path, *rest: Any) -> Any:
        asked.append(path)
        sleep(0.05)
        return before(path, *rest)

    def prompt(_: int) -> np.ndarray:
        session = model.session()
        barrier.wait()
        return session.advance(random_ids(1, MOST_ROWS + 1))

    monkeypatch.setattr(onnxruntime, "open_session", open_slowly)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(prompt, range(4)))
    assert len(asked) == 1
    assert all(np.array_equal(logits, found[0]) for logits in found)


@pytest.mark.usefixtures("installed")
def test_open_graphs_opens_all_at_once(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    """No later call opens anything."""
    model = load(zoo["nested"].bundle, threads=1, overlap=False)
    model.open_graphs()
    assert opened(model) == model.native_stages
    monkeypatch.setattr(onnxruntime, "open_session", lambda *_: pytest.fail("opened again"))
    model.session().advance(random_ids(1, 40))
    model.open_graphs()


@pytest.mark.usefixtures("installed")
def test_a_graph_that_onnxruntime_refuses_is_said_when_it_is_opened(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the long call, again by the next one, and by `open_graphs`, which name the stage; decoding goes on."""
    (tmp_path / "none.onnx").write_bytes(b"no graph")
    own, before = zoo["nested"].bundle, onnxruntime.open_session
    monkeypatch.setattr(
        onnxruntime,
        "open_session",
        lambda path, stage, *rest: before(tmp_path / "none.onnx" if stage == "2.pre" else path, stage, *rest),
    )
    model = load(own, threads=1, overlap=False)
    session = model.session()
    session.advance(random_ids(1, MOST_ROWS))
    said = r'onnxruntime .* can\'t load the engine of stage "2\.pre", built by foveal'
    for _ in range(2):
        with pytest.raises(EngineMismatchError, match=said):
            model.session().advance(random_ids(1, 2 * MOST_ROWS + 2))
    with pytest.raises(EngineMismatchError, match=said):
        model.open_graphs()
    with pytest.raises(EngineMismatchError, match=said):
        load(own, threads=1, overlap=False, native=False)
    assert session.advance(random_ids(1, 1)).shape == (1, 1, 41)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("ending", [".onnx", ".onnx.data"])
def test_a_damaged_graph_is_refused_before_anything_is_opened(own: Path, ending: str) -> None:
    """By its hash, whether it will be needed or not."""
    name = f"8{ending}"
    file = own / "engines" / "cpu" / name
    altered = bytearray(file.read_bytes())
    altered[-1] ^= 1
    file.write_bytes(altered)
    with pytest.raises(BundleError, match=rf"{name}"):
        load(own, threads=1, overlap=False)


@pytest.mark.usefixtures("installed")
def test_sessions_go_on_where_programs_are_added_or_taken_away(zoo: Zoo, tmp_path: Path) -> None:
    """What a session keeps is bound to graphs, engines and their weights, which are the same."""
    without = build(zoo["nested"].bundle, tmp_path / "b", "fp32", native=False)
    session = load(without, threads=1, overlap=False).session()
    session.advance(random_ids(1, 9))
    kept, identity = session.snapshot().to_bytes(), without.identity("cpu")
    built = build(without)
    model = load(built, threads=1, overlap=False)
    assert model.native_stages
    assert identity == built.identity("cpu") != built.identity("cuda")
    again = model.session()
    again.restore(Snapshot.from_bytes(kept))
    assert again.position == 9
    other = build(built, tmp_path / "w8", "w8")
    assert other.identity("cpu") != identity
    with pytest.raises(InputError, match="the snapshot is of another bundle or target"):
        load(other, threads=1, overlap=False).session().restore(Snapshot.from_bytes(kept))
