"""A checkpoint of a hub: of its repository what readers read, from one commit, and afterwards without a network."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hub_server import READER, WRITER, Fault, Hub
from huggingface_hub import constants

from foveal import CheckpointError, ConfigError, FovealError, HubError, StorageError
from foveal.hub import repository
from foveal.models.readers.loading import load_model

Files = dict[str, bytes]


def test_what_is_recorded(hub: Hub, checkpoint: Files) -> None:
    """The commit that the revision led to, the layout, and the license of the card."""
    made = hub.add("owner/name", checkpoint)
    loaded = load_model("hf:owner/name")
    assert loaded.source_format == "foveal"
    assert loaded.source is not None
    assert (loaded.source.name, loaded.source.license) == (f"hf:owner/name@{made.names['main']}", "apache-2.0")
    assert loaded.source.repository == "owner/name"


def test_only_what_readers_read_is_fetched(hub: Hub, checkpoint: Files) -> None:
    """Not the same weights in other formats, not what trainers leave."""
    more = ("pytorch_model.bin", "model.gguf", "optimizer.pt", "logs/train.txt", "onnx/model.onnx", "training.json", "a.png")
    kept = {**checkpoint, "tokenizer_config.json": b"{}", "chat_template.jinja": b"x"}
    hub.add("owner/name", {**kept, **dict.fromkeys(more, b"not these")})
    load_model("hf:owner/name")
    assert hub.fetched() | {"model.safetensors"} == kept.keys()
    assert len(hub.asked_for("^GET /cdn/")) == 1


def test_shards_are_those_of_the_index(hub: Hub, checkpoint: Files) -> None:
    """Of safetensors, if there are others; and their tensors are the same."""
    tensors = safetensors.torch.load(checkpoint["model.safetensors"])
    names = sorted(tensors)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    shards = {file: safetensors.torch.save({name: tensors[name] for name in held}) for file, held in parts.items()}
    index = json.dumps({"weight_map": {name: file for file, held in parts.items() for name in held}}).encode()
    rest = {name: data for name, data in checkpoint.items() if name != "model.safetensors"}
    files = {
        **rest,
        **shards,
        "model.safetensors.index.json": index,
        "other.safetensors": b"x",
        "pytorch_model.bin.index.json": b"x",
    }
    hub.add("owner/name", files)
    hub.add("owner/whole", checkpoint)
    sharded, whole = (load_model(f"hf:owner/{name}").model.state_dict() for name in ("name", "whole"))  # type: ignore[attr-defined]
    assert all(torch.equal(sharded[name], value) for name, value in whole.items())
    assert not hub.asked_for("other.safetensors|pytorch_model")


def test_a_folder_or_a_file_of_a_revision(hub: Hub, checkpoint: Files) -> None:
    """What is asked for is fetched, by a branch, a tag or a commit."""
    made = hub.add("owner/name", {"README.md": checkpoint["README.md"]})
    inside = {f"runs/2/{name}": data for name, data in checkpoint.items()}
    commit = made.commit({**inside, "runs/2/last.safetensors": b"x"}, "work")
    for revision in ("work", commit):
        for path in ("runs/2", "runs/2/model.safetensors"):
            loaded = load_model(f"hf:owner/name@{revision}/{path}")
            assert loaded.source is not None
            assert loaded.source.name == f"hf:owner/name@{commit}/{path}"
    assert not hub.asked_for("last.safetensors")


def test_one_of_several_models_in_a_file(hub: Hub, checkpoint: Files, tmp_path: Path) -> None:
    """A pickle, of which tensors alone are taken."""
    tensors = safetensors.torch.load(checkpoint["model.safetensors"])
    torch.save({"model": {name: value * 0 for name, value in tensors.items()}, "ema": tensors}, tmp_path / "run.pt")
    hub.add("owner/name", {"config.json": checkpoint["config.json"], "run.pt": (tmp_path / "run.pt").read_bytes()})
    loaded = load_model("hf:owner/name/run.pt#ema")
    assert torch.equal(loaded.model.state_dict()["embed.tokens.weight"], tensors["embed.tokens.weight"].float())  # type: ignore[attr-defined]
    with pytest.raises(CheckpointError, match=r"^hf:owner/name holds|several models"):
        load_model("hf:owner/name/run.pt")


def test_pickles_run_nothing(hub: Hub, checkpoint: Files, tmp_path: Path) -> None:
    """A repository of pickles alone is read as far as they hold tensors."""
    torch.save({"weights": torch.nn.Linear(2, 2)}, tmp_path / "w.bin")
    hub.add("owner/name", {"config.json": checkpoint["config.json"], "pytorch_model.bin": (tmp_path / "w.bin").read_bytes()})
    with pytest.raises(CheckpointError, match=r"^hf:owner/name/pytorch_model.bin holds more than tensors .* not unpickled"):
        load_model("hf:owner/name")


def test_progress_is_told_in_megabytes(hub: Hub, checkpoint: Files) -> None:
    """Of all that is missing."""
    hub.add("owner/name", {**checkpoint, "model.safetensors": b"\0" * 3_000_000})
    seen: list[tuple[str, int, int]] = []
    with pytest.raises(CheckpointError):
        load_model("hf:owner/name", on_progress=lambda doing, done, steps: seen.append((doing, done, steps)))
    assert {(doing, steps) for doing, _, steps in seen} == {("downloading hf:owner/name, MB", 4)}
    assert max(done for _, done, _ in seen) == 3


def test_the_cache_is_enough(hub: Hub, checkpoint: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline, and where the hub is out of order; a commit that is there is not asked for again."""
    made = hub.add("owner/name", checkpoint)
    first = load_model("hf:owner/name").source
    hub.asked.clear()
    assert load_model(f"hf:owner/name@{made.names['main']}").source == first
    assert hub.asked == []
    hub.faults.append(Fault("/api/models/", 503))
    assert load_model("hf:owner/name").source == first
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load_model("hf:owner/name").source == first
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert load_model("hf:owner/name").source == first


def test_a_new_commit_is_seen(hub: Hub, checkpoint: Files) -> None:
    """A branch leads where it leads now; files that are the same do not come again."""
    made = hub.add("owner/name", checkpoint)
    load_model("hf:owner/name")
    hub.asked.clear()
    commit = made.commit({**checkpoint, "README.md": b"---\nlicense: mit\n---\n"})
    source = load_model("hf:owner/name").source
    assert source is not None
    assert (source.name, source.license) == (f"hf:owner/name@{commit}", "mit")
    assert hub.asked_for("^GET /cdn/") == []


@pytest.mark.parametrize(
    ("card", "license"),
    [
        (b"---\nlicense: other\nlicense_name: a-license\n---\n", "other (a-license)"),
        (b"---\nlicense:\n- mit\n- apache-2.0\n---\n", "mit or apache-2.0"),
        (b"# no metadata", None),
        (b"---\n: [ no yaml\n---\n", None),
        (b"---\n- a list\n---\n", None),
        (None, None),
    ],
)
def test_licenses(card: bytes | None, license: str | None, hub: Hub, checkpoint: Files) -> None:
    """As the card says it, if it does."""
    rest = {name: data for name, data in checkpoint.items() if name != "README.md"}
    hub.add("owner/name", rest if card is None else {**rest, "README.md": card})
    source = load_model("hf:owner/name").source
    assert source is not None
    assert source.license == license


def refused(name: str = "hf:owner/name", kind: type[FovealError] = HubError) -> str:
    """What is said of a checkpoint that can't be had."""
    with pytest.raises(kind) as caught:
        load_model(name)
    assert type(caught.value) is kind
    return str(caught.value)


def test_tokens(hub: Hub, checkpoint: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that may read is sent to the hub, and to no other host; one that may not is told from none."""
    hub.add("owner/name", checkpoint, private=True)
    assert re.search(r"no hf:owner/name at .* or it is private.*\(no token is set\)", refused())
    monkeypatch.setenv("HF_TOKEN", READER)
    assert re.search(r"or it is private.*\(the one that is set may not\)", refused())
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    assert re.search(r"does not take the token that is set: Invalid", refused())
    hub.asked.clear()
    monkeypatch.setenv("HF_TOKEN", WRITER)
    assert load_model("hf:owner/name").source is not None
    assert {token for line, token in hub.asked if "/cdn/" in line} == {None}
    assert {token for line, token in hub.asked if "owner/name" in line} == {WRITER}


def test_gated(hub: Hub, checkpoint: Files) -> None:
    """Where to ask for it."""
    hub.add("owner/name", checkpoint, gated=True)
    assert re.search(rf"is gated: accept its conditions at {hub.url}/owner/name, then give a token", refused())


def test_no_such_revision(hub: Hub, checkpoint: Files) -> None:
    """It is named."""
    hub.add("owner/name", checkpoint)
    assert re.search(r'^hf:owner/name has no revision "v9"; give a branch, a tag or a commit', refused("hf:owner/name@v9"))


def test_names_that_no_hub_has(hub: Hub) -> None:
    """Nothing is asked."""
    assert "hf:own--er/name: " in refused("hf:own--er/name", ConfigError)
    assert not hub.asked_for("own--er")


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (Fault("GET /api/models/", 429, {"Retry-After": "7"}), r"takes no more requests for now \(429\).*wait 7 s"),
        (
            Fault("HEAD /.*safetensors", 429),
            r"takes no more requests for now \(429\).*; and hf:owner/name is not in .* or not whole",
        ),
        (Fault("GET /cdn/", 429), r"takes no more requests for now \(429\)"),
        (Fault("GET /api/models/", 502), r"is out of order \(502\).*; and hf:owner/name is not in"),
        (Fault("GET /cdn/", 500), r"is out of order \(500\)"),
        (Fault("GET /api/models/", 403), r"forbids to read hf:owner/name"),
        (Fault("GET /api/models/", 451), r"refused to read hf:owner/name \(451\)"),
        (Fault("GET /cdn/", keep_bytes=1000), r"can't be reached|goes on with what is there"),
        (Fault("GET /cdn/", alter=True), r"of another hash than the hub says.*removed again: repeat the command"),
        (Fault("GET .*config.json", alter=True), r"^config.json of hf:owner/name came with .* of another hash"),
    ],
    ids=lambda given: given.where + str(given.status or "") if isinstance(given, Fault) else "",
)
def test_faults(fault: Fault, sentence: str, hub: Hub, checkpoint: Files) -> None:
    """Each in one sentence; when it is over the command does its work."""
    hub.add("owner/name", checkpoint)
    hub.faults.append(fault)
    assert re.search(sentence, refused())
    hub.faults.clear()
    assert load_model("hf:owner/name").source is not None


def test_a_connection_that_breaks_is_taken_up_again(hub: Hub, checkpoint: Files) -> None:
    """By huggingface_hub, where it broke."""
    hub.add("owner/name", checkpoint)
    hub.faults.append(Fault("GET /cdn/", keep_bytes=1000, times=1))
    assert load_model("hf:owner/name").source is not None
    assert len(hub.asked_for("^GET /cdn/")) == 2


def test_no_network_and_nothing_in_the_cache(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline it is said that this was wanted."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert re.search(r"^HF_HUB_OFFLINE is set, and hf:owner/name is not in .*cache", refused())
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert re.search(r"^http://127.0.0.1:9 can't be reached .*check the network, HTTPS_PROXY and HF_ENDPOINT", refused())


def test_half_a_cache_is_not_taken_for_a_whole_one(hub: Hub, checkpoint: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a download that was killed."""
    hub.add("owner/name", checkpoint)
    hub.faults.append(Fault("GET /cdn/", 500))
    refused()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert re.search(r"HF_HUB_OFFLINE is set, and hf:owner/name is not in .* or not whole", refused())


def test_no_room(hub: Hub, checkpoint: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """Known before anything is fetched."""
    hub.add("owner/name", checkpoint)
    usage = repository.shutil.disk_usage
    monkeypatch.setattr(repository.shutil, "disk_usage", lambda path: usage(path)._replace(free=1000))
    assert re.search(r"takes 0.0 GB, and the disk of .*cache has 0.0 GB left", refused(kind=StorageError))
    assert hub.asked_for("^GET /cdn/") == []


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (
            ("a.gguf", "README.md"),
            r"only a.gguf \(GGUF\), README.md; expected .* made from, which its card says is hf:someone/base",
        ),
        (("model.onnx",), r"only model.onnx \(ONNX\); expected \*.safetensors"),
        (("flax_model.msgpack", "tf_model.h5"), r"flax_model.msgpack \(Flax\), tf_model.h5 \(TensorFlow or Keras\)"),
        (("run/2/model.safetensors",), r"only the folders run; expected .*; there are some in run/2: hf:owner/name/run/2"),
        (("a.pt", "b.pt"), r"has 2 files of weights \(a.pt, b.pt\), expected one; say which: hf:owner/name/a.pt"),
        (
            ("manifest.json", "stages/1.onnx"),
            r"is a bundle already, not a checkpoint: run it, for instance `foveal generate hf:",
        ),
        ((), r"there is no file in the repository, which has no files"),
    ],
)
def test_repositories_without_a_checkpoint(files: tuple[str, ...], sentence: str, hub: Hub, checkpoint: Files) -> None:
    """What is there is named, and what to do; no weights are fetched."""
    hub.add("owner/name", {name: checkpoint.get(name, b"x") for name in files})
    assert re.search(sentence, refused(kind=CheckpointError))
    assert hub.asked_for("^GET /cdn/") == []


def test_a_place_that_is_not_there(hub: Hub, checkpoint: Files) -> None:
    """The repository's folders are named."""
    hub.add("owner/name", {f"run/{name}": data for name, data in checkpoint.items()})
    assert re.search(r"there is no walk in the repository, which has run", refused("hf:owner/name/walk", CheckpointError))


def test_layouts_that_nobody_reads(hub: Hub, checkpoint: Files) -> None:
    """What the file says, what is known, and how to change it; by the name on the hub."""
    hub.add("owner/name", {**checkpoint, "config.json": b'{"model_type": "llama"}'})
    said = refused(kind=CheckpointError)
    assert re.search(r"^hf:owner/name is of no layout foveal knows: got a config.json with the keys \['model_type'\]", said)
    assert said.endswith("to change a file of it: `hf download owner/name --local-dir DIR`, and convert DIR")
