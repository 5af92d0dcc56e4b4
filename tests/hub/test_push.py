"""A bundle goes to a hub: checked whole, with its card, in one commit or not at all."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from engine_bundles import STAGES, engine, sidecar, write, write_bundle, write_sidecar
from hub_server import READER, WRITER, Fault, Hub
from specimens import Zoo
from typer.testing import CliRunner

from foveal import BundleError, ConfigError, FovealError, HubError, open_bundle
from foveal.bench.result import BenchResult
from foveal.bundle import MANIFEST, list_files, write_manifest
from foveal.cli import app
from foveal.hub.names import Source
from foveal.hub.push import Published, pack, push

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload:DeprecationWarning")  # huggingface_hub's


@pytest.fixture(autouse=True)
def writer(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who may write."""
    monkeypatch.setenv("HF_TOKEN", WRITER)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle with engines for two targets."""
    path = write_bundle(tmp_path / "bundle")
    change(path)
    return path


def change(path: Path, **model: Any) -> None:
    """Write what its manifest says of its model anew, with cpu engines, and a report."""
    for stage in STAGES:
        write(engine(path, stage, "cpu"), f"cpu engine of {stage}".encode())
        write_sidecar(path, stage, "cpu", sidecar(path, stage, "cpu"))
    write(path / "reports/verify.json", b"{}")
    manifest = open_manifest(path)
    cpu = {stage: f"engines/cpu/{stage}.onnx" for stage in STAGES}
    write_manifest(
        path,
        msgspec.structs.replace(
            manifest,
            model=msgspec.structs.replace(manifest.model, **model),
            engines={**manifest.engines, "cpu": cpu},
            files=list_files(path),
        ),
    )


def open_manifest(path: Path) -> Any:
    """As it is, whatever is there."""
    from foveal.bundle import Manifest

    return msgspec.json.decode((path / MANIFEST).read_bytes(), type=Manifest)


def published(bundle: Path, **settings: Any) -> Published:
    """At owner/name."""
    return push(pack(bundle, "owner/name"), "owner/name", **settings)


def test_all_of_it_in_one_commit(hub: Hub, bundle: Path) -> None:
    """The files of the manifest and a card, neither reports nor what else lies there; it is opened as it was."""
    write(bundle / "notes.txt", b"mine")
    done = published(bundle)
    made = hub.repositories["owner/name"]
    assert len(hub.asked_for("/commit/")) == 1
    names = {*open_bundle(bundle).manifest.files, MANIFEST}
    assert made.files().keys() == {*names, "README.md", ".gitattributes"}
    assert all(made.files()[name] == (bundle / name).read_bytes() for name in names)
    assert done == Published(f"{hub.url}/owner/name/commit/{made.names['main']}", f"hf:owner/name@{made.names['main']}")
    assert open_bundle(done.name).manifest == open_bundle(bundle).manifest


def test_engines_of_some_targets(hub: Hub, bundle: Path) -> None:
    """The manifest names no others, and the bundle is whole."""
    done = push(pack(bundle, "owner/name", targets=["cpu"]), "owner/name")
    opened = open_bundle(done.name)
    assert list(opened.manifest.engines) == ["cpu"]
    assert not any("tensorrt" in path for path in hub.repositories["owner/name"].files())
    with pytest.raises(ConfigError, match=r"has no engines for cuda, only for tensorrt-rtx, cpu; `foveal build` adds them"):
        pack(bundle, "owner/name", targets=["cuda"])


def test_again(hub: Hub, bundle: Path) -> None:
    """What is gone from the bundle is gone from the repository; other files stay; what is the same is not sent."""
    published(bundle)
    made = hub.repositories["owner/name"]
    made.commit({**made.files(), "picture.png": b"mine"})
    hub.asked.clear()
    done = push(pack(bundle, "owner/name", targets=["cpu"]), "owner/name", message="only cpu")
    assert made.messages[-1] == "only cpu"
    assert {"picture.png", "engines/cpu/4.onnx"} <= made.files().keys()
    assert not any(path.startswith("engines/tensorrt-rtx") for path in made.files())
    assert open_bundle(done.name).manifest.engines.keys() == {"cpu"}
    assert hub.asked_for("^PUT") == []


def test_a_branch(hub: Hub, bundle: Path) -> None:
    """It is made; main is as it was."""
    published(bundle, revision="v2", private=True)
    made = hub.repositories["owner/name"]
    assert made.private
    assert MANIFEST in made.files("v2")
    assert MANIFEST not in made.files("main")
    assert published(bundle, revision="v2").name.startswith("hf:owner/name@")


def test_a_bundle_that_is_not_whole(hub: Hub, bundle: Path) -> None:
    """Nothing is asked of the hub."""
    engine(bundle, "4", "cpu").write_bytes(b"altered")
    with pytest.raises(BundleError, match=r"4.onnx"):
        published(bundle)
    assert hub.asked == []


def refused(bundle: Path, kind: type[FovealError] = HubError, **settings: Any) -> str:
    """What is said of a push that fails."""
    with pytest.raises(kind) as caught:
        published(bundle, **settings)
    return str(caught.value)


def test_repositories_of_something_else(hub: Hub, bundle: Path) -> None:
    """They are left alone."""
    hub.add("owner/name", {"config.json": b"{}", "model.safetensors": b"x", "README.md": b"mine"})
    assert re.search(
        r"^hf:owner/name holds something else than a bundle \(config.json, model.safetensors\)", refused(bundle, ConfigError)
    )
    assert hub.repositories["owner/name"].files()["README.md"] == b"mine"


def test_public_ones_do_not_become_private(hub: Hub, bundle: Path) -> None:
    """That is said, and nothing sent."""
    published(bundle)
    hub.asked.clear()
    assert re.search(r"is public already; leave --private out", refused(bundle, ConfigError, private=True))
    assert hub.asked_for("/commit/") == []


def test_who_may_write(hub: Hub, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody without a token, and not everybody with one."""
    hub.add("owner/name", {})
    monkeypatch.setenv("HF_TOKEN", READER)
    assert re.search(r"the one that is set may not", refused(bundle))
    monkeypatch.delenv("HF_TOKEN")
    assert re.search(r"no token is set", refused(bundle))
    assert hub.asked_for("/commit/") == []


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (Fault("PUT /lfs/", 500), r"the transfer failed|out of order"),
        (Fault("POST .*/commit/", 503), r"is out of order \(503\)"),
        (Fault("POST .*/commit/", 412), r"somebody else wrote to hf:owner/name meanwhile.*nothing of the bundle was published"),
        (Fault("POST .*/preupload/", 429, {"Retry-After": "3"}), r"takes no more requests for now \(429\).*wait 3 s"),
        (Fault("POST .*/batch", 403, {"X-Error-Message": "quota"}), r"forbids to write hf:owner/name: quota"),
    ],
    ids=lambda given: given.where if isinstance(given, Fault) else "",
)
def test_never_half(fault: Fault, sentence: str, hub: Hub, bundle: Path) -> None:
    """What was there is as it was; what was sent of large files is not sent again."""
    published(bundle)
    before = dict(hub.repositories["owner/name"].files())
    change(bundle, context=32)
    write(bundle / "stages/4.onnx", b"another graph")
    change(bundle)
    hub.faults.append(fault)
    assert re.search(sentence, refused(bundle))
    assert hub.repositories["owner/name"].files() == before
    hub.faults.clear()
    assert open_bundle(published(bundle).name).manifest == open_bundle(bundle).manifest


def test_somebody_else_writes_meanwhile(hub: Hub, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between what was seen and the commit."""
    published(bundle)
    made = hub.repositories["owner/name"]
    parcel = pack(bundle, "owner/name")
    from huggingface_hub import HfApi

    create = HfApi.create_commit

    def late(self: HfApi, *args: Any, **settings: Any) -> Any:
        made.commit({**made.files(), "theirs.txt": b"x"})
        return create(self, *args, **settings)

    monkeypatch.setattr(HfApi, "create_commit", late)
    change(bundle, context=32)
    with pytest.raises(HubError, match=r"somebody else wrote"):
        push(parcel._replace(files={**parcel.files, "tokenizer_config.json": b"{}"}), "owner/name")
    assert "theirs.txt" in made.files()


@pytest.mark.parametrize("name", ["name", "owner/name@v1", "hf:owner/name/folder", "owner name/x"])
def test_names_that_are_no_repository(name: str, bundle: Path) -> None:
    """One sentence."""
    with pytest.raises(ConfigError, match=r"expected (hf:)?owner/name"):
        pack(bundle, name)


def card_and_metadata(bundle: Path, **settings: Any) -> tuple[str, dict[str, Any]]:
    """The card of a bundle."""
    card = pack(bundle, "owner/name", **settings).card
    return card, yaml.safe_load(card.split("---\n")[1])


def test_metadata_of_the_card(bundle: Path) -> None:
    """What hubs sort models by; the checkpoint's license and repository."""
    source = Source(name="hf:someone/model@0123456789abcdef/runs", license="apache-2.0")
    change(bundle, source=source, notes=("half precision was widened",))
    card, metadata = card_and_metadata(bundle)
    assert metadata == {
        "library_name": "foveal",
        "license": "apache-2.0",
        "base_model": "someone/model",
        "tags": ["foveal", "onnx", "hierarchical", "hourglass", "fp32"],
    }
    assert "[someone/model](https://huggingface.co/someone/model) at `0123456789ab`" in card
    assert "- half precision was widened" in card
    assert card_and_metadata(bundle, license="mit")[1]["license"] == "mit"
    other = card_and_metadata(bundle, license="other (a-license)")[1]
    assert (other["license"], other["license_name"]) == ("other", "a-license")


def test_text_of_the_card(zoo: Zoo) -> None:
    """Sizes as the bundle has them; how to run it; no figures unless they were given."""
    bundle = zoo["linear"].bundle
    card, metadata = card_and_metadata(bundle.path)
    model = bundle.manifest.model
    assert f"`{model.hierarchy}`" in card
    assert f"{model.parameters:,} parameters" in card
    for entry in bundle.manifest.stages:
        spec = entry.spec
        every = "token" if spec.stride == 1 else f"{spec.stride} tokens"
        assert f"| {spec.name} | {every} | {spec.layers} | {spec.parameters:,} | {entry.weight_bytes / 1e6:.2f} |" in card
    assert 'model = foveal.load("hf:owner/name")' in card
    assert {"license", "pipeline_tag", "base_model"}.isdisjoint(metadata)
    assert "Measured" not in card


def run(arguments: Sequence[object]) -> tuple[str, str, BaseException | None]:
    """A command: stdout, stderr, and the error."""
    done = CliRunner().invoke(app, [str(one) for one in arguments])
    return done.stdout, done.stderr, done.exception


def test_the_command(hub: Hub, bundle: Path) -> None:
    """It says where the bundle is, and that the card names no license."""
    out, err, error = run(["push", bundle, "owner/name", "--target", "cpu", "--message", "first"])
    made = hub.repositories["owner/name"]
    assert error is None
    commit = made.names["main"]
    assert out == f"{hub.url}/owner/name/commit/{commit}\nrun it with `foveal generate hf:owner/name@{commit}`\n"
    assert "the card names no license, as the checkpoint's does not; --license NAME does\npublishing " in err
    assert made.messages[-1] == "first"


def test_a_dry_run(hub: Hub, bundle: Path) -> None:
    """The card on stdout, the files with their sizes on stderr, and nothing sent."""
    out, err, error = run(["push", bundle, "owner/name", "--license", "mit", "--dry-run"])
    parcel = pack(bundle, "owner/name", license="mit")
    assert (out, error) == (parcel.card, None)
    assert {line.split()[1]: int(line.split()[0].replace(",", "")) for line in err.splitlines()} == parcel.sizes()
    assert hub.asked == []


def test_figures(zoo: Zoo, tmp_path: Path, bundle: Path) -> None:
    """Those of a file that bench wrote, with the machine and the command; of other models they are refused."""
    path = zoo["vanilla"].bundle.path
    saved = tmp_path / "bench.json"
    sizes = ("--prompt-tokens", "8", "--new-tokens", "8", "--rounds", "1", "--threads", "1")
    run(["bench", path, *sizes, "--save", saved])
    result = msgspec.json.decode(saved.read_bytes(), type=BenchResult)
    out, _, error = run(["push", path, "owner/name", "--measured", saved, "--dry-run"])
    assert error is None
    measured = result.models[0]
    assert f"| {measured.runtime} | 1 | 8 | {measured.latency.ttft_ms.p50:.3f} |" in out
    assert f"`{result.command}`" in out
    assert str(result.environment.cpu) in out
    assert re.search(
        r"bench.json has no figures of .*, 1@1 1@4 1@1 in fp32 .*, but of 3@1 in fp32",
        str(run(["push", bundle, "owner/name", "--measured", saved])[2]),
    )
    saved.write_text(json.dumps({"a": 1}))
    assert re.search(r"bench.json holds no benchmark's result", str(run(["push", path, "o/n", "--measured", saved])[2]))
