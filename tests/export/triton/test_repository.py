"""`export_triton`: a model's folder that says nothing of where it was made, and is there whole or not at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from specimens import Goldens, Zoo
from triton_config import parsed

from foveal import BundleError, ConfigError, FovealError, StorageError
from foveal.bundle import open_bundle
from foveal.export.triton.config import Sequences
from foveal.export.triton.repository import export_triton
from foveal.export.triton.settings import ServerSettings


def files(directory: Path) -> set[str]:
    """All that is in a folder."""
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*") if not path.is_dir()}


@pytest.fixture
def bundle(zoo: Zoo, tmp_path: Path) -> Path:
    """A copy of a bundle, with a report that must not come along."""
    made = tmp_path / "mine" / "small.bundle"
    shutil.copytree(zoo["vanilla"].bundle.path, made)
    (made / "reports").mkdir(exist_ok=True)
    (made / "reports" / "verify.json").write_text(f'{{"checkpoint": "{made}"}}')
    return made


def test_a_model_has_a_config_a_version_and_its_bundle(bundle: Path, tmp_path: Path) -> None:
    """The bundle in it opens, so it is whole; its name is that of the folder, as Triton wants it."""
    made = export_triton(bundle, tmp_path / "repository")
    assert made == tmp_path / "repository" / "small"
    assert files(made) - {f"1/bundle/{name}" for name in files(bundle)} == {"config.pbtxt", "1/model.py"}
    assert open_bundle(made / "1" / "bundle").manifest == open_bundle(bundle).manifest
    assert parsed(made / "config.pbtxt").name == made.name


def test_nothing_says_where_it_was_made(bundle: Path, tmp_path: Path) -> None:
    """No path of this machine is in it, no report, and no link that leads out of it."""
    made = export_triton(bundle, tmp_path / "repository")
    assert not (made / "1" / "bundle" / "reports").exists()
    for path in made.rglob("*"):
        assert not path.is_symlink()
        if path.is_file():
            assert os.fsencode(tmp_path) not in path.read_bytes(), path
    moved = tmp_path / "elsewhere"
    made.rename(moved)
    shutil.rmtree(bundle)
    assert open_bundle(moved / "1" / "bundle").manifest.stages


def test_no_repository_inside_a_bundle(bundle: Path) -> None:
    """Its own, least of all: nothing is written there."""
    before = sorted(bundle.rglob("*"))
    for repository in (bundle, bundle / "models"):
        with pytest.raises(BundleError, match=f"is inside the bundle {bundle}; choose a path outside of it"):
            export_triton(bundle, repository)
    assert sorted(bundle.rglob("*")) == before


def test_a_bundle_of_links_becomes_one_of_files(bundle: Path, tmp_path: Path) -> None:
    """As the caches of model hubs keep them."""
    for path in [path for path in bundle.rglob("*") if path.is_file()]:
        stored = tmp_path / "store" / path.relative_to(bundle)
        stored.parent.mkdir(parents=True, exist_ok=True)
        path.rename(stored)
        path.symlink_to(stored)
    for number, hard_links in enumerate((False, True)):
        made = export_triton(bundle, tmp_path / "repository", name=f"m{number}", hard_links=hard_links)
        assert not any(path.is_symlink() for path in made.rglob("*"))
        assert open_bundle(made / "1" / "bundle")


def test_hard_links_take_no_room(bundle: Path, tmp_path: Path) -> None:
    """Each file of the bundle is there once, under two names."""
    made = export_triton(bundle, tmp_path / "repository", hard_links=True)
    for name in open_bundle(bundle).manifest.files:
        assert (made / "1" / "bundle" / name).samefile(bundle / name)


def test_hard_links_to_another_disk_are_refused(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They can't be; the sentence says what can."""

    def link(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(ConfigError, match=r"can't be linked into the repository .*copy the files \(leave --hard-links out\)"):
        export_triton(bundle, tmp_path / "repository", hard_links=True)
    assert files(tmp_path / "repository") == set()


def test_several_models_share_a_repository(bundle: Path, tmp_path: Path) -> None:
    """Each has its folder; what was there stays."""
    export_triton(bundle, tmp_path / "repository", name="one")
    export_triton(bundle, tmp_path / "repository", name="two")
    assert {path.name for path in (tmp_path / "repository").iterdir()} == {"one", "two"}
    with pytest.raises(ConfigError, match=r"holds a model \(it has .*\), and nothing is replaced there; give another name"):
        export_triton(bundle, tmp_path / "repository", name="one")


def test_what_is_no_model_is_not_replaced_either(bundle: Path, tmp_path: Path) -> None:
    """Neither a folder of somebody's nor a file; an empty folder will do."""
    (tmp_path / "small").mkdir()
    export_triton(bundle, tmp_path)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds something that is no model \(it has thesis.txt\)"):
        export_triton(bundle, tmp_path, name="b")
    assert files(tmp_path / "b") == {"thesis.txt"}
    with pytest.raises(ConfigError, match=r"thesis.txt is a file, expected a folder for the model"):
        export_triton(bundle, tmp_path / "b", name="thesis.txt")


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "-n", "a/b", "a\\b", "a b", "a\n", 'a"b', "naïve", "a" * 129])
def test_a_name_that_is_no_folder_and_no_part_of_a_url_is_refused(name: str, bundle: Path, tmp_path: Path) -> None:
    """Triton itself refuses only "..", and slashes."""
    with pytest.raises(ConfigError, match="a model can't be named .*; give another name"):
        export_triton(bundle, tmp_path / "repository", name=name)
    assert not (tmp_path / "repository").exists()


@pytest.mark.parametrize("name", ["a", "hourglass_v1.2-int8", "7b", "a" * 128])
def test_other_names_are_kept(name: str, bundle: Path, tmp_path: Path) -> None:
    """Letters, digits, '_', '-' and '.'."""
    assert export_triton(bundle, tmp_path / "repository", name=name).name == name


def test_what_is_no_bundle_is_refused(bundle: Path, tmp_path: Path) -> None:
    """And one that is not whole; nothing is left of what was begun."""
    with pytest.raises(BundleError, match="is not a bundle"):
        export_triton(tmp_path, tmp_path / "repository")
    next((bundle / "engines" / "cpu").glob("*.onnx")).write_bytes(b"")
    with pytest.raises(BundleError, match="has 0 bytes"):
        export_triton(bundle, tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


def test_nothing_is_left_of_one_that_failed(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk, half-way."""
    copied = shutil.copyfile

    def copy(source: Path, target: Path) -> object:
        if source.name == "manifest.json":
            raise OSError(28, "No space left on device", str(target))
        return copied(source, target)

    monkeypatch.setattr(shutil, "copyfile", copy)
    with pytest.raises(StorageError, match="No space left on device; free some space"):
        export_triton(bundle, tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"slots": 0}, "slots must be at least 1, got 0"),
        ({"queue": -1}, "queue must be at least 0, got -1"),
        ({"capacity": -1}, "capacity must be at least 0, got -1"),
        ({"state_mb": 0}, "state_mb must be at least 1, got 0"),
        ({"target": "tpu"}, 'unknown target "tpu"'),
        ({"target": "cuda", "threads": 1}, "only cpu engines have threads"),
        ({"target": "cuda"}, "has no engines for cuda, only for: cpu; add them: foveal build"),
    ],
)
def test_settings_that_can_not_be(settings: dict[str, int], sentence: str, bundle: Path, tmp_path: Path) -> None:
    """They are said here, not by a server that starts elsewhere."""
    with pytest.raises(FovealError, match=sentence):
        export_triton(bundle, tmp_path / "repository", settings=ServerSettings(**settings))
    assert not (tmp_path / "repository").exists()


def test_sizes_that_can_not_be(bundle: Path, tmp_path: Path) -> None:
    """Of instances and of sequences."""
    with pytest.raises(ConfigError, match="instances must be at least 1, got 0"):
        export_triton(bundle, tmp_path / "repository", instances=0)
    with pytest.raises(ConfigError, match="most_sequences must be at least 1, got 0"):
        export_triton(bundle, tmp_path / "repository", sequences=Sequences(most=0))


def test_a_capacity_beyond_the_context_is_refused(goldens: Goldens, tmp_path: Path) -> None:
    """By the model, which knows its positions."""
    bundle = goldens["s4_naive_attn"]
    beyond = bundle.manifest.model.context + 1
    with pytest.raises(FovealError, match="capacity"):
        export_triton(bundle, tmp_path, settings=ServerSettings(capacity=beyond))
