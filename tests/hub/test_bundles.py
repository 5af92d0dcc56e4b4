"""A bundle of a hub: brought into the cache whole, and opened as any bundle is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from engine_bundles import write_bundle
from hub_server import Fault, Hub
from huggingface_hub import constants
from specimens import Zoo

from foveal import BundleError, ConfigError, FovealError, HubError, SamplingParams, build, load, open_bundle
from foveal.bench.decode import Load
from foveal.bench.run import bench
from foveal.bench.sweep import Axes, sweep
from foveal.bundle import bundle_name, new_bundle
from foveal.forecast.shapes import shape_of_bundle
from foveal.progress import silent
from foveal.report.facts.models import model_facts
from foveal.runtime.preflight import check


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes]:
    """Those of a bundle with engines for two targets."""
    return files_of(write_bundle(tmp_path / "local"))


def files_of(bundle: Path) -> dict[str, bytes]:
    """By their paths."""
    return {path.relative_to(bundle).as_posix(): path.read_bytes() for path in sorted(bundle.rglob("*")) if path.is_file()}


def test_what_its_manifest_names_is_fetched(hub: Hub, files: dict[str, bytes]) -> None:
    """And nothing else of the repository; the files are links into the cache."""
    made = hub.add("owner/name", {**files, "README.md": b"x", ".gitattributes": b"x", "checkpoint/model.safetensors": b"x"})
    opened = open_bundle("hf:owner/name")
    assert files_of(opened.path) == files
    assert opened.path.name == made.names["main"]
    assert (opened.path / "manifest.json").is_symlink()


def test_a_folder_of_a_revision(hub: Hub, files: dict[str, bytes]) -> None:
    """As of checkpoints."""
    made = hub.add("owner/name", {"README.md": b"x"})
    made.commit({f"small/{path}": data for path, data in files.items()}, "v1")
    assert files_of(open_bundle("hf:owner/name@v1/small").path) == files


def test_figures_go_by_its_name(hub: Hub, zoo: Zoo) -> None:
    """In benchmarks, reports and forecasts: not by the commit, after which its folder in the cache is called."""
    files = files_of(zoo["vanilla"].bundle.path)
    made = hub.add("owner/name", files)
    made.commit(files | {f"small/{path}": data for path, data in files.items()}, "v1")
    for given, name in (("hf:owner/name", "name"), ("hf:owner/name@v1", "name@v1"), ("hf:owner/name@v1/small", "small@v1")):
        opened = open_bundle(given)
        assert opened.name == bundle_name(given) == bundle_name(Path(given)) == name
        assert shape_of_bundle(opened, on_gpu=False).name == name
        assert model_facts([opened])[0].name == name
    (measured,) = bench(["hf:owner/name"], Load(4, 4, rounds=1), threads=1).models
    (point,) = sweep(["hf:owner/name"], Axes((4,), threads=(1,)), new_tokens=4, rounds=1).points
    assert (measured.name, point.bundle) == ("name", "name")


def test_it_runs(hub: Hub, zoo: Zoo) -> None:
    """The same tokens, through links to files that are called by their hashes; twice, and without a network."""
    bundle = zoo["vanilla"].bundle
    hub.add("owner/name", files_of(bundle.path))
    params = SamplingParams(max_new_tokens=8, seed=1)
    expected = list(load(bundle, threads=1).generate_ids([1, 2, 3], params))
    assert list(load("hf:owner/name", threads=1).generate_ids([1, 2, 3], params, draft="hf:owner/name")) == expected
    hub.faults.append(Fault("", 503))
    assert list(load("hf:owner/name", threads=1, verify="once").generate_ids([1, 2, 3], params)) == expected


def test_preflight(hub: Hub, files: dict[str, bytes]) -> None:
    """A bundle is checked for this machine before it runs; the same is said as of one on the disk."""
    hub.add("owner/name", files)
    there, opened = check("hf:owner/name", "tensorrt-rtx"), check(open_bundle("hf:owner/name"), "tensorrt-rtx")
    assert (there.bundle, there.answer) == (opened.bundle, opened.answer)


def refused(name: str = "hf:owner/name", kind: type[FovealError] = BundleError) -> str:
    """What is said of a bundle that can't be had."""
    with pytest.raises(kind) as caught:
        open_bundle(name)
    assert type(caught.value) is kind
    return str(caught.value)


def test_repositories_without_a_bundle(hub: Hub, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint, half a bundle, a manifest that is none, nothing."""
    hub.add("owner/name", {"config.json": b"{}", "model.safetensors": b"x"})
    assert re.search(
        r"is not a bundle: .* only config.json, model.safetensors; .*`foveal convert hf:owner/name BUNDLE`", refused()
    )
    hub.add("owner/half", {path: data for path, data in files.items() if path != "stages/4.onnx"})
    assert re.search(r"^hf:owner/half lacks stages/4.onnx, which its manifest names", refused("hf:owner/half"))
    hub.add("owner/other", {"manifest.json": b"[]", "stages/1.onnx": b""})
    assert re.search(r"^manifest.json of hf:owner/other is not a foveal manifest", refused("hf:owner/other"))
    assert re.search(r"^there is no hf:owner/none", refused("hf:owner/none", HubError))
    assert hub.asked_for("^GET /cdn/") == []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert re.search(r"^HF_HUB_OFFLINE is set", refused(kind=HubError))


def test_altered_on_the_hub(hub: Hub, files: dict[str, bytes]) -> None:
    """The manifest's hashes are those of what was pushed, whatever the hub says."""
    hub.add("owner/name", {**files, "stages/4.onnx": bytes(len(files["stages/4.onnx"]))})
    assert re.search(r"stages/4.onnx was altered", refused())


def test_killed_half_way(hub: Hub, files: dict[str, bytes]) -> None:
    """The next call fetches the rest."""
    hub.add("owner/name", files)
    hub.faults.append(Fault("GET /cdn/.*/4.onnx", 500))
    refused(kind=HubError)
    first = set(hub.asked_for("^GET /cdn/"))
    hub.faults.clear()
    hub.asked.clear()
    open_bundle("hf:owner/name")
    assert not first & set(hub.asked_for("^GET /cdn/")) - {line for line in first if line.endswith("/4.onnx")}


def test_nothing_is_written_there(hub: Hub, files: dict[str, bytes]) -> None:
    """Neither engines into the cache, nor bundles into a folder of that name."""
    hub.add("owner/name", files)
    with pytest.raises(
        ConfigError, match=r"engines can't be added to hf:owner/name, which is on a hub; name a bundle to write"
    ):
        build("hf:owner/name", target="cpu")
    with (
        pytest.raises(ConfigError, match=r"is on a hub, expected a folder to write; .*foveal push"),
        new_bundle("hf:a/b", silent),
    ):
        pass
