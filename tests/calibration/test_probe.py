"""The shuffled-context probe: the loss behind a permuted half against the same window as it is."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from precisions import write_text
from specimens import Specimen

from foveal import ConfigError
from foveal.calibration import probe
from foveal.calibration.probe import shuffled
from foveal.models.hourglass.model import Hourglass

WINDOW = 48
SPANS = [(1, 1), (2, 2), (3, 4), (5, 8), (9, 16), (17, 24)]


@pytest.fixture
def module() -> ModuleType:
    """The module, which the function of the same name hides."""
    return sys.modules["foveal.calibration.probe"]


def windows_of(text: Path) -> list[np.ndarray]:
    """The whole windows of a file."""
    ids = np.frombuffer(text.read_bytes(), np.uint8).astype(np.int64)
    return list(ids[: len(ids) // WINDOW * WINDOW].reshape(-1, WINDOW))


def losses(model: Hourglass, ids: np.ndarray) -> np.ndarray:
    """Nats at each position of the second half."""
    half = len(ids) // 2
    with torch.no_grad():
        logits = model(torch.from_numpy(ids)[None])[0, half - 1 : -1]
    return F.cross_entropy(logits, torch.from_numpy(ids[half:]), reduction="none").numpy()


@given(st.integers(2, 100), st.integers(0, 1000))
def test_only_the_first_half_is_shuffled(length: int, seed: int) -> None:
    """It keeps its tokens; of an odd length the middle one is in the second half. The same seed shuffles alike."""
    window = np.random.default_rng(9).integers(0, 50, length)
    before, half = window.copy(), length // 2
    found = shuffled(window, np.random.default_rng(seed))
    np.testing.assert_array_equal(found[half:], window[half:])
    np.testing.assert_array_equal(np.sort(found[:half]), np.sort(window[:half]))
    np.testing.assert_array_equal(found, shuffled(window, np.random.default_rng(seed)))
    np.testing.assert_array_equal(window, before)


def test_it_is_shuffled_indeed() -> None:
    """Each window in another way."""
    rng, window = np.random.default_rng(0), np.arange(100)
    first, second = shuffled(window, rng), shuffled(window, rng)
    assert (first[:50] != window[:50]).any()
    assert (first[:50] != second[:50]).any()


@pytest.mark.parametrize(("limit", "seed"), [(None, 0), (5, 3)])
def test_the_rise_is_against_the_same_window(nested: Specimen, text: Path, limit: int | None, seed: int) -> None:
    """By distance behind the border, with the interval over windows: what PyTorch finds."""
    windows, rng = windows_of(text), np.random.default_rng(seed)
    if limit is not None:
        windows = [windows[round(index)] for index in np.linspace(0, len(windows) - 1, limit)]
    rises = np.stack([losses(nested.model, shuffled(ids, rng)) - losses(nested.model, ids) for ids in windows])
    (found,) = probe([nested.bundle], [text], window=WINDOW, limit=limit, seed=seed, threads=1)
    assert (found.window, found.windows, found.hierarchy) == (WINDOW, len(windows), "1@1 0@2 1@4 0@2 0@1")
    assert [(distance.first, distance.last) for distance in found.distances] == SPANS
    for distance in found.distances:
        means = rises[:, distance.first - 1 : distance.last].mean(axis=1)
        assert distance.nats == pytest.approx(means.mean(), abs=1e-4)
        assert distance.half_width == pytest.approx(1.96 * means.std(ddof=1) / np.sqrt(len(means)), abs=1e-4)


def test_a_seed_decides(nested: Specimen, text: Path) -> None:
    """The same one finds the same, another one something else; bundles in one call see the same permutations."""
    first, again = probe([nested.bundle, nested.bundle], [text], window=WINDOW, limit=4, threads=1)
    (other,) = probe([nested.bundle], [text], window=WINDOW, limit=4, seed=1, threads=1)
    assert first == again
    assert first.distances != other.distances


@pytest.mark.parametrize(
    ("rises", "settles"),
    [
        ([0.9, 0.4, 0.2, 0.06, 0.04, 0.01], 9),
        ([0.9, 0.01, 0.2, 0.06, 0.04, 0.01], 9),  # being below once is not yet staying there
        ([0.9, 0.4, 0.2, 0.06, 0.04, 0.06], None),
        ([0.01, -0.4, 0.0, 0.04, 0.04, 0.01], 1),
        ([0.9, 0.4, 0.2, 0.06, 0.05, 0.049], 17),  # the threshold itself is not below it
    ],
)
def test_where_the_rise_stays_below_the_threshold(
    nested: Specimen, text: Path, module: ModuleType, monkeypatch: pytest.MonkeyPatch, rises: list[float], settles: int | None
) -> None:
    """The first distance from which it does, or none."""
    spread = np.repeat(rises, [last - first + 1 for first, last in SPANS])
    monkeypatch.setattr(module, "_rise", lambda *_: spread)
    (found,) = probe([nested.bundle], [text], window=WINDOW, limit=3, threshold=0.05, threads=1)
    assert [distance.nats for distance in found.distances] == pytest.approx(rises)
    assert (found.settles_at, found.threshold) == (settles, 0.05)


@pytest.mark.parametrize(
    ("window", "spans"),
    [(2, [(1, 1)]), (3, [(1, 1), (2, 2)]), (7, [(1, 1), (2, 2), (3, 4)]), (18, [(1, 1), (2, 2), (3, 4), (5, 8), (9, 9)])],
)
def test_distances_double(nested: Specimen, text: Path, window: int, spans: list[tuple[int, int]]) -> None:
    """Up to the end of the window, whatever its length."""
    (found,) = probe([nested.bundle], [text], window=window, limit=2, threads=1)
    assert [(distance.first, distance.last) for distance in found.distances] == spans


def test_windows_are_no_longer_than_a_context(nested: Specimen, text: Path) -> None:
    """If nobody says how long."""
    (found,) = probe([nested.bundle], [text], limit=2, threads=1)
    assert found.window == nested.bundle.manifest.model.context < 512


def test_only_whole_windows_take_part(nested: Specimen, tmp_path: Path) -> None:
    """So many as the limit says, though the text ends within one."""
    text = write_text(tmp_path / "t.txt")
    text.write_bytes(text.read_bytes()[: 10 * WINDOW + 17])
    for limit, expected in ((2, 2), (5, 5), (10, 10), (11, 10), (None, 10)):
        (found,) = probe([nested.bundle], [text], window=WINDOW, limit=limit, threads=1)
        assert found.windows == expected


def test_directories_are_their_files(nested: Specimen, text: Path, tmp_path: Path) -> None:
    """In order of name, with a limit or without."""
    half = text.stat().st_size // 2
    for name, part in (("b.txt", text.read_bytes()[half:]), ("a.txt", text.read_bytes()[:half])):
        (tmp_path / name).write_bytes(part)
    for limit in (None, 3):
        split, whole = (probe([nested.bundle], [path], window=WINDOW, limit=limit, threads=1) for path in (tmp_path, text))
        assert split == whole


def test_progress_counts_over_all_bundles(nested: Specimen, text: Path) -> None:
    """Window by window, to the end."""
    steps = []
    probe([nested.bundle] * 2, [text], window=WINDOW, limit=3, threads=1, on_progress=lambda *step: steps.append(step))
    assert steps == [*(("probing b", done, 6) for done in range(6)), ("done", 1, 1)]


def test_too_little_text(nested: Specimen, tmp_path: Path) -> None:
    """One window has no spread; the limit has nothing to do with it."""
    (tmp_path / "t.txt").write_text("a" * (2 * WINDOW - 1))
    for limit in (None, 2, 100):
        with pytest.raises(ConfigError, match="the text holds 1 windows of 48 tokens, expected at least 2; give more text"):
            probe([nested.bundle], [tmp_path / "t.txt"], window=WINDOW, limit=limit, threads=1)


@pytest.mark.parametrize("window", [97, 1, 0, -8])
def test_a_window_that_can_not_be(nested: Specimen, text: Path, window: int) -> None:
    """Longer than the context, or without two halves."""
    with pytest.raises(ConfigError, match=rf"the window is {window} tokens, expected 2 to 96, the context of .*b$"):
        probe([nested.bundle], [text], window=window, threads=1)


@pytest.mark.parametrize("limit", [1, 0, -1])
def test_a_limit_that_leaves_nothing_to_compare(nested: Specimen, text: Path, limit: int) -> None:
    """More text would not help."""
    with pytest.raises(ConfigError, match=f"the limit is {limit} windows, expected at least 2, or None for all"):
        probe([nested.bundle], [text], window=WINDOW, limit=limit, threads=1)
