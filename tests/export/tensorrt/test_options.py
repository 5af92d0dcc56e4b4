"""What is asked of engines is checked against the model and the library before anything is built."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from specimens import Zoo
from tensorrt_builds import rtx_family

from foveal import BackendUnavailable, ConfigError, EngineOptions, build
from foveal.contract import Limits
from foveal.export import convert_model
from foveal.export.tensorrt import family
from foveal.export.tensorrt.family import Family, family_of
from foveal.runtime.engines import tensorrt_library
from foveal.runtime.engines.tensorrt_library import Library, library_of


def full_family(version: str, zoo: Zoo, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Family:
    """As on a machine with a release of the full TensorRT."""
    monkeypatch.setattr(family, "library_of", lambda _: Library("tensorrt", None, version, None))
    bundle = zoo["vanilla"].bundle
    specs = [entry.spec for entry in bundle.manifest.stages]
    return family_of(bundle.manifest.model, specs, "tensorrt", EngineOptions(**options))


def test_limits_unless_said_otherwise(zoo: Zoo) -> None:
    """One sequence, the model's context, and a prefill of all of it if that is short."""
    bundle = zoo["vanilla"].bundle
    assert rtx_family(bundle).limits == Limits(batch=1, capacity=96, prefill=96)
    assert rtx_family(bundle, max_batch=4, capacity=64).limits == Limits(batch=4, capacity=64, prefill=64)
    assert rtx_family(bundle, capacity=64, max_prefill=16).limits == Limits(batch=1, capacity=64, prefill=16)
    long = dataclasses.replace(EngineOptions(), capacity=4096).limits(
        rtx_family(zoo["linear"].bundle).model  # its positions are relative: it may be longer than its context
    )
    assert long == Limits(batch=1, capacity=4096, prefill=512)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"max_batch": 0}, "^max_batch must be at least 1, got 0$"),
        ({"capacity": -5}, "^capacity must be at least 1, got -5$"),
        ({"max_prefill": 0}, "^max_prefill must be at least 1, got 0$"),
        ({"capacity": 97}, "^capacity 97 is more than the model has positions: 96; choose at most that$"),
        ({"capacity": 8, "max_prefill": 9}, "^max_prefill 9 is more than the capacity, 8; choose at most that$"),
        (
            {"compute_capabilities": ("8.9", "8.7")},
            '^TensorRT-RTX [0-9.]+ does not build for compute capability "8.7"; expected 7.5, 8.0, 8.6, 8.9, 12.0, 12.1$',
        ),
        (
            {"timing_cache": Path("x")},
            "^TensorRT-RTX [0-9.]+ measures nothing while it builds, so it has no timing cache; ",
        ),
        ({"dialect": "latin"}, '^unknown dialect "latin"; expected one of modern, classic$'),
    ],
)
def test_options_that_mean_nothing(options: dict[str, Any], reason: str, zoo: Zoo, tmp_path: Path) -> None:
    """Both ways to build say the same, and write nothing."""
    with pytest.raises(ConfigError, match=reason):
        build(zoo["vanilla"].bundle, tmp_path / "b", "w8", "tensorrt-rtx", options=EngineOptions(**options))
    with pytest.raises(ConfigError, match=reason):
        convert_model(zoo["vanilla"].model, tmp_path / "b", "tensorrt-rtx", options=EngineOptions(**options))
    assert list(tmp_path.iterdir()) == []


def test_options_for_a_target_that_has_none(zoo: Zoo) -> None:
    """A capacity that was silently not kept to would be found out late."""
    with pytest.raises(ConfigError, match='^engine options are for GPUs, got them for target "cpu"'):
        build(zoo["vanilla"].bundle, options=EngineOptions(capacity=32))


def test_the_full_library_builds_for_the_gpu_it_finds(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes no list of others; but it measures, and keeps what it measured."""
    with pytest.raises(ConfigError, match="^TensorRT 11.4.0 builds for the GPU it finds, got compute capabilities 8.9, 9.0;"):
        full_family("11.4.0", zoo, monkeypatch, compute_capabilities=("8.9", "9.0"))
    assert full_family("11.4.0", zoo, monkeypatch, timing_cache=Path("x")).options.timing_cache == Path("x")


@pytest.mark.parametrize(
    ("version", "dialect"), [("10.3.0", "classic"), ("10.14.1.48", "classic"), ("11.0.0", "modern"), ("11.4.0.106", "modern")]
)
def test_the_dialect_is_the_best_that_the_library_takes(
    version: str, dialect: str, zoo: Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT-RTX has versions of its own, and takes the modern one; any other may be asked for by name."""
    assert rtx_family(zoo["vanilla"].bundle).dialect.name == "modern"
    assert rtx_family(zoo["vanilla"].bundle, dialect="classic").dialect.name == "classic"
    assert full_family(version, zoo, monkeypatch).dialect.name == dialect


@pytest.mark.parametrize(
    ("target", "remedy"),
    [
        (
            "tensorrt",
            "on a Jetson it comes with JetPack, for environments that were made with `python3 -m venv --system-site-pac",
        ),
        ("tensorrt-rtx", r"pip install '\.\[rtx\]'"),
    ],
)
def test_a_library_that_is_not_there(target: Any, remedy: str, zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the line that installs it."""
    monkeypatch.setitem(tensorrt_library._MODULES, target, "no_such_library")
    library_of.cache_clear()
    try:
        with pytest.raises(
            BackendUnavailable, match=rf"^no_such_library can't be imported .*{target} engines need it: .*{remedy}"
        ):
            build(zoo["vanilla"].bundle, target=target)
    finally:
        library_of.cache_clear()


def test_a_library_that_is_too_old(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Strong types and dynamic caches came late."""
    (tmp_path / "tensorrt_of_old.py").write_text("__version__ = '8.6.1'\nclass ILogger:\n    def __init__(self): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(tensorrt_library._MODULES, "tensorrt", "tensorrt_of_old")
    library_of.cache_clear()
    try:
        with pytest.raises(BackendUnavailable, match="^TensorRT 8.6.1 is too old, expected 10.3 or later; pip install"):
            library_of("tensorrt")
    finally:
        library_of.cache_clear()
