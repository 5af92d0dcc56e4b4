"""What a text shows of a bundle: all of it, counted by stage and phase, kept for the next time, or refused."""

from __future__ import annotations

import re
import shutil
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from precisions import module_path, write_text
from specimens import Specimen
from torch import Tensor, nn

from foveal import CalibrationError, ConfigError, InputError
from foveal.bundle import Bundle
from foveal.calibration import Calibration, CalibrationSettings, calibrate
from foveal.calibration.calibrate import FLOOR
from foveal.models.hourglass.model import Hourglass
from foveal.models.layers.attention import Attention
from foveal.runtime import backends

CONTEXT = 96
STRIDES = {"1.pre": 1, "2.pre": 2, "4": 4, "2.post": 2, "1.post": 1}


@pytest.fixture(scope="module")
def found(nested: Specimen, text: Path) -> Calibration:
    """What the text shows of the nested model."""
    return calibrate(nested.bundle, [text], threads=1)


def windows_of(text: Path) -> list[Tensor]:
    """The ids `[1, L]` that the calibration runs on, one context after the other."""
    ids = torch.tensor([list(text.read_bytes())])
    return [window for window in ids.split(CONTEXT, 1) if window.shape[1] > 1]


def rows_by_phase(text: Path) -> dict[str, Counter[int]]:
    """Counted token by token."""
    counts: dict[str, Counter[int]] = {stage: Counter() for stage in STRIDES}
    for window in windows_of(text):
        for token in range(window.shape[1]):
            for stage, stride in STRIDES.items():
                if token % stride == 0:
                    counts[stage][token % 4] += 1
    return counts


def short_text(path: Path, tokens: int) -> Path:
    """So many bytes."""
    path.write_text((write_text(path).read_text() * 2)[:tokens])
    return path


def reports(bundle: Bundle) -> list[Path]:
    """What was kept, temporary files included."""
    return sorted((bundle.path / "reports").glob("*")) + sorted((bundle.path / "reports").glob(".*"))


@pytest.mark.parametrize("tokens", [CONTEXT * 6, CONTEXT * 7 + 1, CONTEXT * 8 + 5])
def test_coverage_counts_every_row_of_every_phase(bundle: Bundle, tmp_path: Path, tokens: int) -> None:
    """In whole windows, a last one of a single token, which is left out, and one that ends within a group."""
    text = short_text(tmp_path / "t.txt", tokens)
    found = calibrate(bundle, [text], threads=1)
    assert found.coverage == rows_by_phase(text)
    assert found.tokens == tokens - (tokens % CONTEXT == 1)
    assert {stage: set(phases) for stage, phases in found.coverage.items()} == {
        stage: set(range(0, 4, stride)) for stage, stride in STRIDES.items()
    }


def test_every_product_has_seen_every_row_of_its_stage(found: Calibration) -> None:
    """Those of resampling and the head included."""
    assert {name.split("/")[0] for name in found.products} == set(STRIDES)
    assert {"2.pre/Shorten/flat_pooled", "4/Lengthen/wide", "1.post/exit/logits"} < set(found.products)
    for name, ranges in found.products.items():
        assert ranges.rows == found.coverage[name.split("/")[0]].total()
        assert ranges.histogram.sum() == ranges.rows * len(ranges.absmax)


def test_ranges_are_those_of_the_full_forward(nested: Specimen, found: Calibration, text: Path) -> None:
    """Inputs and results of every `nn.Linear`, where PyTorch runs the whole model over the same windows."""
    seen = linear_rows(nested.model, list(found.products), windows_of(text))
    for name, ranges in found.products.items():
        x, y = (torch.cat(rows).numpy() for rows in zip(*seen[name], strict=True))
        assert ranges.rows == len(x)
        np.testing.assert_allclose(ranges.absmax, np.abs(x).max(axis=0), rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(ranges.mean_square, np.square(x, dtype=np.float64).mean(axis=0), rtol=1e-3)
        assert ranges.output_absmax == pytest.approx(np.abs(y).max(), rel=1e-3)
        quantile = np.quantile(np.abs(x), found.settings.percentile / 100, method="inverted_cdf")
        assert found.threshold(name) == pytest.approx(quantile, abs=1.01 * ranges.bin_width)


def linear_rows(model: Hourglass, products: list[str], windows: list[Tensor]) -> dict[str, list[tuple[Tensor, Tensor]]]:
    """Inputs and results `[rows, ...]` of each product, window by window."""
    seen: dict[str, list[tuple[Tensor, Tensor]]] = defaultdict(list)
    stages = {stage.spec.name: stage.module for stage in model.stages()}
    hooks = []
    for name in products:
        stage, _, place = name.partition("/")
        linear = stages[stage].get_submodule(module_path(place))
        hooks.append(linear.register_forward_hook(lambda _, x, y, name=name: seen[name].append((x[0][0], y[0]))))
    with torch.no_grad():
        for window in windows:
            model(window)
    for hook in hooks:
        hook.remove()
    return seen


def test_cache_ranges_are_those_of_rotated_keys(
    nested: Specimen, found: Calibration, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an attention keeps is what it compares with: keys after their rotation."""
    seen: dict[nn.Module, list[tuple[float, float]]] = defaultdict(list)
    project = Attention._project

    def observed(self: Attention, x: Tensor, rope: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = project(self, x, rope)
        seen[self].append((float(key.abs().max()), float(value.abs().max())))
        return query, key, value

    monkeypatch.setattr(Attention, "_project", observed)
    with torch.no_grad():
        for window in windows_of(text):
            nested.model(window)
    assert set(found.caches) == {"1.pre/attention/0", "4/attention/0"}
    for stage in (stage for stage in nested.model.stages() if stage.spec.layers):
        attention = stage.module.get_submodule("stack.layers.0.attention")
        keys, values = np.array(seen[attention]).max(axis=0)
        ranges = found.caches[f"{stage.spec.name}/attention/0"]
        assert (ranges.key_absmax, ranges.value_absmax) == pytest.approx((keys, values), rel=1e-3)


def test_memory_does_not_grow_with_the_text(bundle: Bundle, tmp_path: Path) -> None:
    """Eight times the text, the same arrays."""
    sizes = []
    for tokens in (CONTEXT * 6, CONTEXT * 48):
        found = calibrate(bundle, [short_text(tmp_path / "t.txt", tokens)], threads=1)
        assert found.tokens == tokens
        arrays = [array for r in found.products.values() for array in (r.absmax, r.square_sum, r.histogram)]
        sizes.append(sum(array.nbytes for array in arrays))
    assert sizes[0] == sizes[1]


def test_at_most_so_many_tokens_are_spread_over_the_text(bundle: Bundle, text: Path) -> None:
    """In whole windows: 700 tokens have room for seven."""
    found = calibrate(bundle, [text], CalibrationSettings(max_tokens=700), threads=1)
    assert found.tokens == 7 * CONTEXT
    assert calibrate(bundle, [text], CalibrationSettings(max_tokens=10**6), threads=1).tokens == text.stat().st_size


def test_how_long_it_takes_is_said_before_and_on_the_way(bundle: Bundle, text: Path) -> None:
    """How many tokens, before the first window; about how long, once two have shown how long one takes."""
    steps = []
    settings = CalibrationSettings(max_tokens=701)
    calibrate(bundle, [text], settings, threads=1, on_progress=lambda *step: steps.append(step))
    tokens = f"calibrating on {7 * CONTEXT} tokens"
    assert [step[1:] for step in steps] == [(done, 7) for done in range(8)]
    assert [doing for doing, _, _ in steps[:2]] == [tokens, tokens]
    assert all(re.fullmatch(rf"{tokens}, about (\d+ min )?\d+ s left", doing) for doing, _, _ in steps[2:7])


def test_too_little_text(bundle: Bundle, tmp_path: Path) -> None:
    """The stage and phase that saw least, how much that is, and how much text would do."""
    reason = (
        r'stage "1\.pre" saw 25 rows at phase 1 in 101 tokens, expected at least 128; give about 518 tokens of text$'  # 96 + 5
    )
    with pytest.raises(CalibrationError, match=reason):
        calibrate(bundle, [short_text(tmp_path / "t.txt", 101)], threads=1)
    assert reports(bundle) == []
    found = calibrate(bundle, [short_text(tmp_path / "t.txt", 518)], threads=1)
    assert min(min(phases.values()) for phases in found.coverage.values()) >= FLOOR


def test_a_text_of_one_token(bundle: Bundle, tmp_path: Path) -> None:
    """Nothing is seen at all."""
    (tmp_path / "t.txt").write_text("a")
    with pytest.raises(CalibrationError, match=r"saw 0 rows at phase 0 in 0 tokens, .* give about 512 tokens of text"):
        calibrate(bundle, [tmp_path / "t.txt"], threads=1)


def test_too_little_of_the_text(bundle: Bundle, text: Path) -> None:
    """More text would not help where the settings leave it out."""
    with pytest.raises(CalibrationError, match="give about 512 tokens of text, and set max_tokens no lower: it is 192"):
        calibrate(bundle, [text], CalibrationSettings(max_tokens=192), threads=1)


def test_text_that_can_not_be_read(bundle: Bundle, tmp_path: Path) -> None:
    """The text's own errors; tests/calibration/test_text.py has them all."""
    (tmp_path / "empty.txt").touch()
    with pytest.raises(ConfigError, match="no text was given"):
        calibrate(bundle, [], threads=1)
    with pytest.raises(ConfigError, match="the text is empty"):
        calibrate(bundle, [tmp_path / "empty.txt"], threads=1)
    info = msgspec.structs.replace(bundle.manifest.model, vocab_size=100)
    other = Bundle(bundle.path, msgspec.structs.replace(bundle.manifest, model=info))
    with pytest.raises(InputError, match="the model knows 100 tokens"):
        calibrate(other, [write_text(tmp_path / "t.txt")], threads=1)


def test_a_bundle_that_is_not_fp32(bundle: Bundle, text: Path) -> None:
    """Its ranges would be those of rounded weights."""
    other = Bundle(bundle.path, msgspec.structs.replace(bundle.manifest, precision="mixed"))
    with pytest.raises(ConfigError, match=r"is mixed, expected fp32; calibrate the bundle it was built from"):
        calibrate(other, [text], threads=1)


@pytest.mark.parametrize(
    ("weight", "value", "reason"),
    [
        ("feed_forward.up.bias", np.nan, "output of 4/stack/layers/0/feed_forward/up: got nan"),
        ("feed_forward.norm.weight", 3e38, "input of 4/stack/layers/0/feed_forward/up: got -?inf"),
        ("feed_forward.down.bias", -np.inf, "output of 4/stack/layers/0/feed_forward/down: got -inf"),
    ],
)
def test_activations_that_are_not_finite(
    with_weight: Callable[[str, str, np.ndarray], Bundle], text: Path, weight: str, value: float, reason: str
) -> None:
    """The stage and the product are named; nothing is kept."""
    size = 32 if weight.endswith("up.bias") else 24
    broken = with_weight("4", f"stack.layers.0.{weight}", np.full(size, value))
    with pytest.raises(CalibrationError, match=f'stage "4", {reason}, expected finite numbers; the checkpoint is broken there'):
        calibrate(broken, [text], threads=1)
    assert reports(broken) == []


def never(*_: object) -> None:
    """What must not be run a second time."""
    raise AssertionError("the text was read again")


def test_the_same_call_finds_what_was_kept(
    bundle: Bundle, found: Calibration, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every number of it, without running the model; wherever the text lies, if it is the same."""
    calibrate(bundle, [text], threads=1)
    assert [path.name for path in reports(bundle)] == [f"calibration-{found.key[:16]}.safetensors"]
    monkeypatch.setattr(sys.modules["foveal.calibration.calibrate"], "_observe", never)
    moved = Path(shutil.copy(text, tmp_path / "moved.txt"))
    assert_same(calibrate(bundle, [moved], threads=1), found)


def assert_same(got: Calibration, expected: Calibration) -> None:
    """Field by field, array by array."""
    for name in ("key", "settings", "tokens", "coverage", "caches"):
        assert getattr(got, name) == getattr(expected, name)
    assert list(got.products) == list(expected.products)
    for name, ranges in expected.products.items():
        for part, value in vars(ranges).items():
            np.testing.assert_array_equal(getattr(got.products[name], part), value)
            assert np.asarray(getattr(got.products[name], part)).dtype == np.asarray(value).dtype
        assert got.threshold(name) == expected.threshold(name)


def test_anything_else_is_kept_apart(
    bundle: Bundle, found: Calibration, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another text, other settings, another order, other graphs."""
    monkeypatch.setattr(backends, "require_whole", lambda *_: None)  # the other graphs have no engines of theirs
    other = write_text(tmp_path / "other.txt", 300, seed=1)
    graph = "stages/4.onnx.data"
    files = {**bundle.manifest.files, graph: msgspec.structs.replace(bundle.manifest.files[graph], sha256="0" * 64)}
    trained = Bundle(bundle.path, msgspec.structs.replace(bundle.manifest, files=files))
    keys = [
        calibrate(given, texts, settings, threads=1).key
        for given, texts, settings in (
            (bundle, [text], None),
            (bundle, [other], None),
            (bundle, [text, other], None),
            (bundle, [other, text], None),
            (bundle, [text], CalibrationSettings(method="minmax")),
            (bundle, [text], CalibrationSettings(percentile=99)),
            (trained, [text], None),
        )
    ]
    assert keys[0] == found.key
    assert len(set(keys)) == len(keys) == len(reports(bundle))


def test_a_file_of_something_else(
    bundle: Bundle, found: Calibration, text: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A name is no proof: it is told, and what is asked for is measured again; so it is where a file was damaged."""
    other = calibrate(bundle, [write_text(tmp_path / "other.txt", 300, seed=1)], threads=1)
    (path,) = reports(bundle)
    path.rename(path.with_name(path.name.replace(other.key[:16], found.key[:16])))
    assert calibrate(bundle, [text], threads=1).key == found.key
    assert "can't be used (it is the calibration of something else); the text is read again" in caplog.text
    path.with_name(path.name.replace(other.key[:16], found.key[:16])).write_bytes(b"x" * 100)
    assert calibrate(bundle, [text], threads=1).key == found.key


def test_an_interrupted_run_leaves_nothing_behind(bundle: Bundle, found: Calibration, text: Path) -> None:
    """The next one starts again, and finds the same."""

    def stop(_doing: str, done: int, _steps: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate(bundle, [text], threads=1, on_progress=stop)
    assert reports(bundle) == []
    assert_same(calibrate(bundle, [text], threads=1), found)


def test_thresholds_follow_the_method(bundle: Bundle, text: Path) -> None:
    """Without clipping, and with much of it."""
    whole, clipped = (
        calibrate(bundle, [text], settings, threads=1)
        for settings in (CalibrationSettings(method="minmax"), CalibrationSettings(percentile=90))
    )
    for name, ranges in whole.products.items():
        assert whole.threshold(name) == ranges.absmax.max()
        assert clipped.threshold(name) < whole.threshold(name)
