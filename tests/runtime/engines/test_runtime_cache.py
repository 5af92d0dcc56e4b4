"""What TensorRT-RTX compiled is kept on disk, and nothing depends on it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from fake_cuda import FakeGpu
from fake_tensorrt import FakeRtxConfig, FakeTensorRT, fake_of
from tensorrt_surface import real

from foveal.runtime.engines.runtime_cache import RuntimeCache


@pytest.fixture
def library() -> FakeTensorRT:
    """TensorRT-RTX."""
    return FakeTensorRT("tensorrt-rtx", FakeGpu())


@pytest.fixture
def config(library: FakeTensorRT) -> Any:
    """What a context is made with."""
    return library.strict("IRuntimeConfig", FakeRtxConfig(library))


def compiled(config: Any) -> list[str]:
    """The kernels in the cache of a configuration."""
    return fake_of(config).cache.kernels


def test_has_its_place_by_the_hash_of_its_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the user's cache directory: an engine that is built anew has another."""
    monkeypatch.setenv("FOVEAL_CACHE", str(tmp_path))
    assert RuntimeCache.of("ab12").path == tmp_path / "rtx-kernels/ab12.cache"


def test_comes_back_as_it_was_saved(tmp_path: Path, library: FakeTensorRT, config: Any) -> None:
    """Byte for byte, through a folder that is made when it is needed."""
    first = RuntimeCache(tmp_path / "new/one.cache")
    first.attach(config)
    compiled(config).append("kernel")
    first.save()
    assert first.path.read_bytes() == b'["kernel"]'
    other = library.strict("IRuntimeConfig", FakeRtxConfig(library))
    RuntimeCache(first.path).attach(other)
    assert compiled(other) == ["kernel"]


def test_is_shared_by_the_contexts_of_an_engine(tmp_path: Path, library: FakeTensorRT, config: Any) -> None:
    """The second attaches what the first created."""
    cache, other = RuntimeCache(tmp_path / "one.cache"), library.strict("IRuntimeConfig", FakeRtxConfig(library))
    cache.attach(config)
    cache.attach(other)
    assert compiled(config) is compiled(other)


def test_that_the_library_rejects_is_written_anew(
    tmp_path: Path, library: FakeTensorRT, config: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says why the first run takes longer."""
    cache = RuntimeCache(tmp_path / "one.cache")
    cache.path.write_bytes(b"of another GPU")
    library.accepts_caches = False
    with caplog.at_level(logging.INFO):
        cache.attach(config)
    assert f"{cache.path} is of another GPU, driver or version; its kernels are compiled anew" in caplog.text
    compiled(config).append("kernel")
    cache.save()
    assert cache.path.read_bytes() == b'["kernel"]'


def test_that_did_not_change_is_not_written(tmp_path: Path, config: Any) -> None:
    """Every session saves once it is warm; the second has nothing to add."""
    cache = RuntimeCache(tmp_path / "one.cache")
    cache.attach(config)
    compiled(config).append("kernel")
    cache.save()
    cache.path.unlink()
    cache.save()
    assert not cache.path.exists()
    compiled(config).append("another")
    cache.save()
    assert cache.path.exists()


def test_that_can_not_be_written_is_no_error(tmp_path: Path, config: Any, caplog: pytest.LogCaptureFixture) -> None:
    """As in a home that is read-only: a warning, once, and the session opens."""
    (tmp_path / "file").write_bytes(b"")
    cache = RuntimeCache(tmp_path / "file/one.cache")
    cache.attach(config)
    compiled(config).append("kernel")
    cache.save()
    cache.save()
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.startswith("can't keep the kernels that TensorRT-RTX compiled: ")


def test_of_a_library_that_has_none_is_nothing(tmp_path: Path) -> None:
    """Nothing was attached, so nothing is written."""
    RuntimeCache(tmp_path / "one.cache").save()
    assert list(tmp_path.iterdir()) == []
    assert not hasattr(real("tensorrt"), "IRuntimeCache")
