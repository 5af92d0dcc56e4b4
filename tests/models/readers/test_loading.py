"""Whose checkpoint it is: recognised by what it says of itself, or refused with what was found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from specimens import random_model

from foveal import CheckpointError
from foveal.models.checkpoint import save_checkpoint
from foveal.models.readers import loading
from foveal.models.readers.loading import LAYOUTS, Layout, load_model
from foveal.models.weights import Reading


def write(directory: Path, config: Any) -> Path:
    """A directory with a `config.json`."""
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return directory


def layout(name: str, key: str, model: Any = None) -> Layout:
    """One that is recognised by a key of its configuration."""
    return Layout(name, f'a "{key}"', lambda config, _: key in config, lambda _path, _config, _reading: model)


def test_a_layout_is_known_by_its_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its reader is given the configuration; the tokenizer beside it is found, and its name goes into the manifest."""
    model, given = random_model("1@1"), []

    def read(path: Path, config: dict[str, Any], _reading: Reading) -> Any:
        given.append((path, config))
        return model

    odd = Layout("odd", "a number of wheels", lambda config, _: "wheels" in config, read)
    monkeypatch.setattr(loading, "LAYOUTS", (layout("other", "wings"), odd))
    path = write(tmp_path / "c", {"wheels": 3})
    loaded = load_model(path)
    assert (loaded.model, loaded.tokenizer_path, loaded.source_format) == (model, None, "odd")
    assert given == [(path, {"wheels": 3})]
    (path / "tokenizer.json").write_text("{}")
    assert load_model(path).tokenizer_path == path / "tokenizer.json"


def test_a_file_of_weights_may_say_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The configuration beside it is read, if there is one."""
    seen: list[dict[str, Any]] = []

    def recognises(config: dict[str, Any], path: Path) -> bool:
        seen.append(config)
        return path.suffix == ".odd"

    monkeypatch.setattr(loading, "LAYOUTS", (Layout("odd", "its suffix", recognises, lambda _path, _config, _reading: None),))
    (tmp_path / "weights.odd").write_bytes(b"x")
    (tmp_path / "tokenizer.json").write_text("{}")
    loaded = load_model(tmp_path / "weights.odd")
    assert loaded.tokenizer_path == tmp_path / "tokenizer.json"
    write(tmp_path, {"wheels": 4})
    load_model(tmp_path / "weights.odd")
    assert seen == [{}, {"wheels": 4}]


def test_an_unknown_layout(tmp_path: Path) -> None:
    """The message has what was found, and every sign that was looked for."""
    path = write(tmp_path / "c", {"wheels": 3, "class": "Cart"})
    torch.save({"wheel.weight": torch.ones(2, 2)}, path / "model.pt")
    with pytest.raises(
        CheckpointError,
        match=r"is of no layout foveal knows: got a config.json with the keys \['class', 'wheels'\] and class \"Cart\"",
    ) as caught:
        load_model(path)
    for known in LAYOUTS:
        assert f"{known.name}: {known.sign}" in str(caught.value)


def test_several_layouts_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which, and by what."""
    monkeypatch.setattr(loading, "LAYOUTS", (layout("cart", "wheels"), layout("plane", "wings"), layout("boat", "keel")))
    path = write(tmp_path / "c", {"wheels": 3, "wings": 2})
    with pytest.raises(
        CheckpointError,
        match=r'looks like several layouts: cart \(a "wheels"\) and like plane \(a "wings"\); '
        "leave in config.json what belongs to one of them",
    ):
        load_model(path)


def test_no_config(tmp_path: Path) -> None:
    """The files that are there are named; or that there are none; or the file that was given, and what it is."""
    with pytest.raises(CheckpointError, match="no weights in .*; expected model.safetensors, or one file"):
        load_model(tmp_path)
    for index in range(2):
        torch.save({"wheel.weight": torch.ones(2, 2)}, tmp_path / f"part{index}.bin")
    with pytest.raises(CheckpointError, match=r"has 2 files of weights \(part0.bin, part1.bin\), expected one; give the path"):
        load_model(tmp_path)
    with pytest.raises(CheckpointError, match="got the file part1.bin; expected one of"):
        load_model(tmp_path / "part1.bin")


def test_nothing_there(tmp_path: Path) -> None:
    """A path that does not exist."""
    with pytest.raises(CheckpointError, match="no checkpoint at .*nowhere; expected a directory with config.json and weights"):
        load_model(tmp_path / "nowhere")


@pytest.mark.parametrize(("text", "reason"), [("{", "is not JSON: "), ("[1]", "holds a list, expected an object")])
def test_a_config_that_is_none(tmp_path: Path, text: str, reason: str) -> None:
    """The file is named."""
    with pytest.raises(CheckpointError, match=f"config.json {reason}"):
        load_model(write(tmp_path / "c", text))


def test_every_layout_has_a_name_of_its_own() -> None:
    """Manifests keep it."""
    names = [known.name for known in LAYOUTS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("hierarchy", "architecture"),
    [("1@1 1@2 1@1", "hourglass"), ("1@4 1@1", "top-down"), ("1@1 1@2 1@1", "bottom-up"), ("2@1", "retina")],
)
def test_foveals_own(hierarchy: str, architecture: str, tmp_path: Path) -> None:
    """All of its architectures, each as the model that it was."""
    fixed = {"shortening": "average", "upsampling": "repeat", "positions": "learned"}
    model = random_model(hierarchy, architecture=architecture, **fixed)
    save_checkpoint(model, tmp_path / "c")
    loaded = load_model(tmp_path / "c")
    assert loaded.source_format == "foveal"
    assert type(loaded.model) is type(model)
    assert loaded.model.describe() == model.describe()
