"""Bundles with TensorRT engines: added or written whole or not at all, found again, and described by their sidecars."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from combinations import deep
from precisions import CACHE
from specimens import Zoo
from tensorrt_builds import PreciseModels

from foveal import BuildError, Bundle, ConfigError, EngineOptions, build, open_bundle
from foveal.bundle import SAMPLER
from foveal.contract import Limits
from foveal.export import convert_model
from foveal.export.tensorrt import build as building
from foveal.export.tensorrt import compile as compiling
from foveal.export.tensorrt.layers import LayersUnreadable, read_layers
from foveal.files import sha256_of
from foveal.precision import Plan

RTX = "tensorrt-rtx"


def engines_of(bundle: Bundle) -> list[str]:
    """The names of a bundle's engines for a device: its stages', and that of what draws tokens."""
    return [*(entry.spec.name for entry in bundle.manifest.stages), SAMPLER]


def files(directory: Path) -> dict[str, bytes]:
    """Everything under a directory."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.fixture
def bundle(zoo: Zoo, tmp_path: Path) -> Bundle:
    """A copy to change, with reports."""
    path = Path(shutil.copytree(zoo["linear"].bundle.path, tmp_path / "b"))
    (path / "reports").mkdir()
    (path / "reports" / "verify.json").write_text("{}")
    return open_bundle(path)


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stages that are really built, in order."""
    built: list[str] = []
    real = compiling.build_engine

    def watched(lowered: object, *rest: object) -> object:
        built.append(lowered.spec.name)  # type: ignore[attr-defined]
        return real(lowered, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(compiling, "build_engine", watched)
    return built


def test_engines_are_added(bundle: Bundle) -> None:
    """All that was there still is, reports included; each engine has a sidecar and the list of its layers."""
    before = files(bundle.path)
    made = build(bundle, target=RTX)
    after = files(made.path)
    assert made.path == bundle.path
    assert list(made.manifest.engines) == ["cpu", RTX]
    assert {name: after[name] for name in before if name != "manifest.json"} == {
        name: data for name, data in before.items() if name != "manifest.json"
    }
    names = engines_of(bundle)
    added = {f"engines/{RTX}/{name}{ending}" for name in names for ending in (".engine", ".json", ".layers.json")}
    assert after.keys() - before.keys() == added
    assert made.manifest.precision == bundle.manifest.precision
    assert [path.name for path in bundle.path.parent.iterdir()] == ["b"]


def test_sidecars_say_all_there_is_to_say(bundle: Bundle) -> None:
    """Who, on what, for what, from what; a preflight needs no more."""
    made = build(bundle, target=RTX, options=EngineOptions(max_batch=2, capacity=64, compute_capabilities=("8.9", "12.0")))
    for entry in made.manifest.stages:
        sidecar = made.sidecar(RTX, entry.spec.name)
        engine, record = made.file(made.manifest.engines[RTX][entry.spec.name]), sidecar.build
        assert (sidecar.target, sidecar.stage, sidecar.dialect) == (RTX, entry.spec.name, "modern")
        assert sidecar.limits == Limits(batch=2, capacity=64, prefill=64)
        assert sidecar.graph_sha256 == sha256_of(made.file(entry.graph))
        assert sidecar.engine_sha256 == sha256_of(engine)
        assert sidecar.cache_widths == tuple(cache.width for cache in entry.spec.caches)
        assert sidecar.cache_dtype == entry.spec.cache_dtype
        assert {(product.asked, product.obtained, product.reason) for product in sidecar.products} == {("fp32", "fp32", "")}
        assert all(product.kernel for product in sidecar.products)
        assert record is not None
        assert (record.library, record.compute_capabilities) == (RTX, ("8.9", "12.0"))
        assert record.version.count(".") == 3
        assert record.system.startswith("Linux-")
        assert len(record.cache_key) == len(record.tactics_sha256) == 64
        assert record.seconds > 0
        assert record.peak_memory_bytes > engine.stat().st_size
        layers = read_layers(engine)
        assert sum(record.kernels.values()) == len(layers.of_profile(0)) > 0
        assert layers.network["KV_CACHE_UPDATE"] > 0 or entry.spec.layers == 0


def test_an_int8_bundle_stays_int8(models: PreciseModels, tmp_path: Path) -> None:
    """Engines are added in the precision that the graphs are in, as the CPU's sidecars say; calibrating again is not needed."""
    source = models["vanilla"].build(Plan(default="int8", cache=CACHE))
    path = Path(shutil.copytree(source.path, tmp_path / "b"))
    for precision in (None, "int8", source.manifest.plan):
        made = build(path, precision=precision, target=RTX)
        assert made.manifest.plan == source.manifest.plan
        sidecar = made.sidecar(RTX, "1")
        assert (sidecar.precision_asked, sidecar.precision_obtained) == ("int8", "int8")
        assert len(sidecar.products) == len(source.sidecar("cpu", "1").products)


@pytest.mark.parametrize("precision", ["w8", Plan(default="fp32", head=False)])
def test_another_precision_is_another_bundle(precision: str | Plan, bundle: Bundle) -> None:
    """What was rounded could not be had back."""
    before = files(bundle.path)
    with pytest.raises(
        ConfigError, match=r"b is fp32, asked for is \w+, which is another bundle; say where to write it: out=.*OUT"
    ):
        build(bundle, precision=precision, target=RTX)
    assert files(bundle.path) == before


def test_a_bundle_of_another_precision_with_engines(models: PreciseModels, tmp_path: Path) -> None:
    """Quantised and compiled in one call, from a model too."""
    model = models["vanilla"]
    made = build(model.full, tmp_path / "b", "w4", RTX)
    assert (made.manifest.precision, list(made.manifest.engines)) == ("w4", [RTX])
    assert {product.obtained for product in made.sidecar(RTX, "1").products} == {"w4"}
    direct = convert_model(model.model, tmp_path / "c", RTX, "w4", tokenizer="bytes")
    assert direct.sidecar(RTX, "1").products == made.sidecar(RTX, "1").products
    assert direct.manifest.stages == made.manifest.stages


def test_engines_are_built_once(bundle: Bundle, builds: list[str], tmp_path: Path) -> None:
    """For the same graphs, options and library, wherever the bundle lies; other options are other engines."""
    names = engines_of(bundle)
    first = build(bundle, target=RTX)
    assert builds == names
    copy = Path(shutil.copytree(bundle.path, tmp_path / "copy"))
    second = build(copy, target=RTX)
    assert builds == names
    assert files(second.path) == files(first.path)
    with pytest.raises(BuildError, match="the engine cache has no engine"):
        build(bundle, target=RTX, options=EngineOptions(max_batch=2, error_on_miss=True))


def test_engines_of_a_graph_that_changed_are_built_again(models: PreciseModels, builds: list[str], tmp_path: Path) -> None:
    """The graphs of two precisions have the same names and shapes."""
    for precision in ("w4", "w8", "w4"):
        build(models["vanilla"].full, tmp_path / "b", precision, RTX)
    assert builds == ["1", SAMPLER, "1"]  # tokens are drawn from the same logits


def test_nothing_is_built_where_that_was_ruled_out(bundle: Bundle, builds: list[str]) -> None:
    """In a CI that has no time for it; the stage is named, and the bundle is as it was."""
    before, strict = files(bundle.path), EngineOptions(error_on_miss=True)
    with pytest.raises(
        BuildError, match=r'no engine for stage "1.pre" \(\w{12}\) as TensorRT-RTX .*; build once without --error-'
    ):
        build(bundle, target=RTX, options=strict)
    assert builds == []
    assert files(bundle.path) == before
    build(bundle, target=RTX)
    build(bundle, target=RTX, options=strict)
    assert builds == engines_of(bundle)


def test_a_damaged_entry_is_built_again(
    bundle: Bundle, builds: list[str], cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Truncated engines and unreadable entries are thrown away, and it is said."""
    build(bundle, target=RTX)
    (engine, *_), entries = sorted(cache.rglob("engine")), sorted(cache.rglob("entry.json"))
    engine.write_bytes(engine.read_bytes()[:-1])
    entries[1].write_text("{")
    build(bundle, target=RTX)
    assert len(builds) == len(engines_of(bundle)) + 2
    assert sum("was damaged; it is removed" in message for message in caplog.messages) == 2


def test_a_build_goes_on_where_it_stopped(bundle: Bundle, builds: list[str]) -> None:
    """Stages that were built before something went wrong are not built again."""
    before = files(bundle.path)

    def stop(doing: str, done: int, _steps: int) -> None:
        if done == 2:
            raise RuntimeError(doing)

    with pytest.raises(RuntimeError, match="compiling stage 1.post for tensorrt-rtx"):
        build(bundle, target=RTX, on_progress=stop)
    assert files(bundle.path) == before
    build(bundle, target=RTX)
    assert builds == ["1.pre", "5", "1.post", SAMPLER]


KILLED = """
import os, signal, sys
import foveal
def die(doing, done, steps):
    if done == 1 and "50%" in doing:
        os.kill(os.getpid(), signal.SIGKILL)
foveal.build(sys.argv[1], target="tensorrt-rtx", on_progress=die)
"""


def test_a_build_that_is_killed_leaves_the_bundle_whole(bundle: Bundle, builds: list[str], cache: Path) -> None:
    """In the midst of the second stage: no half engine anywhere, and the first need not be built again."""
    before = files(bundle.path)
    done = subprocess.run([sys.executable, "-c", KILLED, str(bundle.path)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert files(bundle.path) == before
    assert len(list(cache.rglob("entry.json"))) == 1
    made = build(bundle, target=RTX)
    assert builds == ["5", "1.post", SAMPLER]
    assert open_bundle(made.path).manifest == made.manifest


INTERRUPTED = """
import sys
import foveal
def show(doing, done, steps):
    print(doing, flush=True)
foveal.build(sys.argv[1], target="tensorrt-rtx", on_progress=show)
"""


def test_ctrl_c_in_a_program(bundle: Bundle) -> None:
    """The way a terminal does it: the program ends as any that is interrupted does, and leaves nothing."""
    before = files(bundle.path)
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(bundle.path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "%" in line:
                break
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert errors.strip().endswith("KeyboardInterrupt")
    assert process.returncode == -signal.SIGINT
    assert files(bundle.path) == before
    assert [path.name for path in bundle.path.parent.iterdir()] == ["b"]


def test_a_product_that_runs_otherwise_fails_the_build(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """The product, what it was written in and what it runs as are named; nothing is left."""
    before = files(bundle.path)
    monkeypatch.setattr("foveal.export.tensorrt.layers._PRECISIONS", {("Float", "Float"): "fp16"})
    with pytest.raises(
        BuildError, match=r"does not run these products as they were written: .*qkv \(written fp32, run as fp16 by"
    ):
        build(bundle, target=RTX)
    assert files(bundle.path) == before


def test_a_library_that_does_not_say(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Its engines are built, but no precision is claimed for them, and the reason is kept."""

    def unreadable(_: object) -> None:
        raise LayersUnreadable("the log has 0 lists of layers, expected 1")

    monkeypatch.setattr(building, "layers_listed", unreadable)
    sidecar = build(bundle, target=RTX).sidecar(RTX, "5")
    assert (sidecar.precision_asked, sidecar.precision_obtained) == ("fp32", "unknown")
    assert {product.reason for product in sidecar.products} == {"the log has 0 lists of layers, expected 1"}
    assert caplog.messages[-1].endswith(
        "does not say in words known here how it runs the products: the log has 0 lists of layers, expected 1"
    )


def test_how_far_it_is(bundle: Bundle) -> None:
    """Stages are counted, and what is done within one is said in words."""
    seen: list[tuple[str, int, int]] = []
    build(bundle, target=RTX, on_progress=lambda *step: seen.append(step))
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    assert {steps for _, _, steps in seen} == {4}
    assert seen[0] == ("compiling stage 1.pre for tensorrt-rtx", 0, 4)
    assert seen[1] == ("compiling stage 1.pre for tensorrt-rtx: 0%, cloning network graph", 0, 4)
    assert [doing for doing, _, _ in seen[-2:]] == ["hashing", "done"]


WITHOUT = """
import sys
for name in ("torch", "onnxruntime", "scipy"):
    sys.modules[name] = None
import foveal
made = foveal.build(sys.argv[1], target="tensorrt-rtx")
print(*made.manifest.engines)
"""


def test_neither_torch_nor_onnxruntime_is_needed(bundle: Bundle) -> None:
    """A Jetson has neither."""
    done = subprocess.run([sys.executable, "-c", WITHOUT, str(bundle.path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "cpu tensorrt-rtx\n", "")


@deep
def test_all_stages_of_the_shipped_model_take_less_than_a_minute(models: PreciseModels, tmp_path: Path) -> None:
    """On 2 CPUs, in int8."""
    source = models["shipped"].build(Plan(default="int8", cache=CACHE))
    path, began = shutil.copytree(source.path, tmp_path / "b"), time.process_time()
    made = build(path, target=RTX)
    assert time.process_time() - began < 60
    assert list(made.manifest.engines[RTX]) == engines_of(made)
