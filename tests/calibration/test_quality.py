"""How well a bundle predicts text: what PyTorch says of the model on the same windows."""

from __future__ import annotations

import copy
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from precisions import write_text
from specimens import Specimen
from torch import Tensor

from foveal import CalibrationError, ConfigError, FovealWarning
from foveal.bundle import Bundle
from foveal.calibration import Quality, evaluate, probe, quality
from foveal.calibration.buckets import Bucket
from foveal.models.hourglass.model import Hourglass
from foveal.models.text import train_tokenizer

MEASURES = ("reference_nats_per_token", "kl_nats", "top1_agreement")


def log_probabilities(model: Hourglass, windows: Sequence[Tensor]) -> Tensor:
    """Of the token after each but the last of every window `[L]`, all in a row `[T, V]`."""
    with torch.no_grad():
        return torch.cat([F.log_softmax(model(window[None])[0, :-1], -1) for window in windows])


def losses(model: Hourglass, windows: Sequence[Tensor]) -> Tensor:
    """Nats at each of these positions."""
    targets = torch.cat([window[1:] for window in windows])
    return F.nll_loss(log_probabilities(model, windows), targets, reduction="none")


def windows_of(text: Path, length: int) -> list[Tensor]:
    """The bytes of a file, cut."""
    return [window for window in torch.tensor(list(text.read_bytes())).split(length) if len(window) > 1]


@pytest.mark.parametrize("window", [None, 50, 2])
def test_bits_per_byte(nested: Specimen, tmp_path: Path, window: int | None) -> None:
    """In windows of the context, of another length, and in pairs."""
    text = write_text(tmp_path / "t.txt", 60)
    found = evaluate(nested.bundle, [text], window=window, threads=1)
    nats = losses(nested.model, windows_of(text, window or 96))
    assert (found.window, found.tokens, found.precision, found.target) == (window or 96, len(nats), "fp32", "cpu")
    assert found.nats_per_token == pytest.approx(float(nats.mean()), rel=1e-4)
    assert found.bits_per_byte == pytest.approx(float(nats.mean()) / math.log(2), rel=1e-4)


def test_the_confidence_interval_comes_from_the_windows(nested: Specimen, text: Path) -> None:
    """Of their means; one window alone says nothing of it."""
    means = np.array([float(losses(nested.model, [window]).mean()) for window in windows_of(text, 96)])
    found = evaluate(nested.bundle, [text], threads=1)
    assert found.nats_half_width == pytest.approx(1.96 * means.std(ddof=1) / math.sqrt(len(means)), rel=1e-3)
    assert evaluate(nested.bundle, [text], limit=1, threads=1).nats_half_width == math.inf


def test_tokens_of_several_bytes(bundle: Bundle, text: Path) -> None:
    """Bits are counted per byte of the text, whatever the tokens are."""
    train_tokenizer([text.read_text()], 300).save(str(bundle.path / "tokenizer.json"))
    other = Bundle(bundle.path, msgspec.structs.replace(bundle.manifest, tokenizer="tokenizer.json"))
    found = evaluate(other, [text], threads=1)
    bytes_per_token = text.stat().st_size / (found.tokens + math.ceil(found.tokens / 95))  # the first of a window has no past
    assert bytes_per_token > 1.5
    assert found.bits_per_byte == pytest.approx(found.nats_per_token / math.log(2) / bytes_per_token)


def test_a_bundle_is_no_distance_from_itself(nested: Specimen, text: Path) -> None:
    """KL 0, always the same likeliest token, in every bucket."""
    found = evaluate(nested.bundle, [text], reference=nested.bundle, threads=1)
    assert (found.kl_nats, found.top1_agreement, found.bits_per_byte_change) == (0, 1, 0)
    assert (found.reference, found.reference_bits_per_byte) == (str(nested.bundle.path), found.bits_per_byte)
    assert {(bucket.kl_nats, bucket.top1_agreement) for bucket in found.buckets} == {(0, 1)}


def test_without_a_reference_there_is_no_distance(nested: Specimen, text: Path) -> None:
    """Nor in the buckets."""
    found = evaluate(nested.bundle, [text], threads=1)
    names = ("reference", "reference_bits_per_byte", "bits_per_byte_change", "kl_nats", "top1_agreement")
    assert {getattr(found, name) for name in names} == {None}
    assert {getattr(bucket, name) for bucket in found.buckets for name in MEASURES} == {None}


@pytest.fixture
def altered(nested: Specimen, with_weight: Callable[[str, str, np.ndarray], Bundle]) -> Specimen:
    """The model with another bias before its head."""
    model = copy.deepcopy(nested.model)
    bias = model.head.norm.bias
    with torch.no_grad():
        bias.add_(torch.linspace(-0.5, 0.5, len(bias)))
    return Specimen(model, with_weight("1.post", "exit.norm.bias", bias.detach().numpy()))


def test_distance_from_a_reference(nested: Specimen, altered: Specimen, text: Path) -> None:
    """KL from the reference's prediction to the bundle's, and how often both find the same token likeliest."""
    found = evaluate(altered.bundle, [text], reference=nested.bundle, threads=1)
    windows = windows_of(text, 96)
    expected, predicted = (log_probabilities(model, windows) for model in (nested.model, altered.model))
    reference_nats, nats = (float(losses(model, windows).mean()) for model in (nested.model, altered.model))
    assert found.kl_nats == pytest.approx(
        float(F.kl_div(predicted, expected, reduction="batchmean", log_target=True)), rel=1e-3
    )
    same = (predicted.argmax(-1) == expected.argmax(-1)).float().mean()
    assert 0.1 < float(same) < 0.95
    assert found.top1_agreement == pytest.approx(float(same), abs=2e-3)
    assert found.nats_per_token == pytest.approx(nats, rel=1e-4)
    assert found.reference_bits_per_byte == pytest.approx(reference_nats / math.log(2), rel=1e-4)
    assert found.bits_per_byte_change == pytest.approx(nats / reference_nats - 1, rel=1e-2)


def total(found: Quality, measure: Callable[[Bucket], float | None]) -> float:
    """Mean of a measure over all buckets, by their tokens."""
    return sum(bucket.tokens * (measure(bucket) or 0) for bucket in found.buckets) / found.tokens


def test_buckets_add_up(nested: Specimen, altered: Specimen, text: Path) -> None:
    """To the figures of the whole."""
    found = evaluate(altered.bundle, [text], reference=nested.bundle, threads=1)
    assert len(found.buckets) > 1
    assert sum(bucket.tokens for bucket in found.buckets) == found.tokens
    assert found.reference_bits_per_byte is not None
    for measure, expected in (
        (lambda bucket: bucket.nats_per_token, found.nats_per_token),
        (lambda bucket: bucket.reference_nats_per_token, found.reference_bits_per_byte * math.log(2)),
        (lambda bucket: bucket.kl_nats, found.kl_nats),
        (lambda bucket: bucket.top1_agreement, found.top1_agreement),
    ):
        assert total(found, measure) == pytest.approx(expected)


def test_frequencies_are_those_of_the_whole_text(nested: Specimen, tmp_path: Path) -> None:
    """Also of windows that a limit leaves out: "z" is common in the first, rare in the text."""
    (tmp_path / "a.txt").write_text("z" * 96)
    write_text(tmp_path / "b.txt", 8000)
    content = (tmp_path / "a.txt").read_bytes() + (tmp_path / "b.txt").read_bytes()
    found = evaluate(nested.bundle, [tmp_path], limit=1, threads=1)
    assert 1000 <= Counter(content)[ord("z")] * 1e6 / len(content) < 10_000
    assert [(bucket.at_least, bucket.tokens) for bucket in found.buckets] == [(1000, 95)]


def test_a_limit_spreads_windows_over_the_text(nested: Specimen, text: Path) -> None:
    """The first, the last and those between at even distances."""
    windows = windows_of(text, 96)
    chosen = [windows[round(index)] for index in np.linspace(0, len(windows) - 1, 4)]
    steps = []
    found = evaluate(nested.bundle, [text], limit=4, threads=1, on_progress=lambda *step: steps.append(step))
    assert found.tokens == sum(len(window) - 1 for window in chosen)
    assert found.nats_per_token == pytest.approx(float(losses(nested.model, chosen).mean()), rel=1e-4)
    assert steps == [*(("reading text", done, 4) for done in range(4)), ("done", 4, 4)]


def test_directories_are_their_files(nested: Specimen, text: Path, tmp_path: Path) -> None:
    """In order of name, with a limit or without."""
    half = text.stat().st_size // 2
    for name, part in (("b.txt", text.read_bytes()[half:]), ("a.txt", text.read_bytes()[:half])):
        (tmp_path / name).write_bytes(part)
    for limit in (None, 3):
        split, whole = (evaluate(nested.bundle, [path], limit=limit, threads=1) for path in (tmp_path, text))
        assert split == whole


def test_a_reference_of_another_vocabulary(nested: Specimen, bundle: Bundle, text: Path) -> None:
    """Both sizes are named."""
    info = msgspec.structs.replace(bundle.manifest.model, vocab_size=299)
    other = Bundle(bundle.path, msgspec.structs.replace(bundle.manifest, model=info))
    with pytest.raises(ConfigError, match="the bundles know 300 and 299 tokens; compare bundles of the same vocabulary"):
        evaluate(nested.bundle, [text], reference=other, threads=1)


@pytest.mark.parametrize("window", [97, 1, 0, -3])
def test_a_window_that_can_not_be(nested: Specimen, text: Path, window: int) -> None:
    """Longer than the context, or with nothing to predict."""
    with pytest.raises(ConfigError, match=f"the window is {window} tokens, expected 2 to 96, the model's context"):
        evaluate(nested.bundle, [text], window=window, threads=1)


def test_text_that_can_not_be_measured(nested: Specimen, tmp_path: Path) -> None:
    """Too little, or none of it wanted; tests/calibration/test_text.py has the others."""
    (tmp_path / "t.txt").write_text("a")
    with pytest.raises(ConfigError, match="the text is a single token, which predicts nothing; give more text"):
        evaluate(nested.bundle, [tmp_path / "t.txt"], threads=1)
    (tmp_path / "t.txt").write_text("abc")
    assert evaluate(nested.bundle, [tmp_path / "t.txt"], threads=1).tokens == 2
    with pytest.raises(ConfigError, match="the limit is 0 windows, expected at least 1"):
        evaluate(nested.bundle, [tmp_path / "t.txt"], limit=0, threads=1)


def test_text_of_another_tokenizer(bundle: Bundle, tmp_path: Path) -> None:
    """It does not know these characters."""
    (tmp_path / "t.txt").write_text("ein Wörterbuch\n")
    tokenizer = train_tokenizer(["the sea"], 300)
    vocabulary = {piece: index for piece, index in tokenizer.get_vocab().items() if piece.isascii()}
    content = msgspec.json.decode(tokenizer.to_str())
    content["model"] |= {"vocab": {piece: index for index, piece in enumerate(vocabulary)}, "merges": []}
    (bundle.path / "tokenizer.json").write_bytes(msgspec.json.encode(content))
    other = Bundle(bundle.path, msgspec.structs.replace(bundle.manifest, tokenizer="tokenizer.json"))
    with pytest.warns(FovealWarning, match=r"not give back all of the text: 'ein Wörterbuch\\n' comes back as 'ein"):
        found = evaluate(other, [tmp_path / "t.txt"], threads=1)
    assert found.lost.startswith("'ein Wörterbuch")
    assert found.bits_per_byte == pytest.approx(found.nats_per_token / math.log(2) * 12 / 16)


def test_the_interval_of_a_change_is_that_of_pairs() -> None:
    """As often as it says, it holds the true change: of windows whose losses differ far more than the two bundles do."""
    rng, holds = np.random.default_rng(0), 0
    windows = np.repeat(np.arange(40), 25)
    for _ in range(300):
        hard = np.repeat(rng.gamma(4, 1, 40), 25)  # some windows are hard for both
        reference = hard + rng.gamma(1, 0.2, 1000)
        nats = reference * 1.01 + np.repeat(rng.normal(0, 0.02, 40), 25)
        half_width = quality._paired_half_width(nats, reference, windows)
        holds += abs(nats.sum() / reference.sum() - 1.01) <= half_width
        assert half_width < 0.1 * quality._half_width(nats, windows) / reference.mean()
    assert 0.9 <= holds / 300 <= 0.98


def test_no_difference_is_shown_between_equals(nested: Specimen, text: Path) -> None:
    """Against itself the change and its interval are 0; a single window has no interval."""
    found = evaluate(nested.bundle, [text], reference=nested.bundle, limit=3, threads=1)
    assert (found.bits_per_byte_change, found.bits_per_byte_change_half_width, found.is_difference_shown) == (0, 0, False)
    assert (found.kl_half_width, found.top1_half_width) == (0, 0)
    alone = evaluate(nested.bundle, [text], reference=nested.bundle, limit=1, threads=1)
    assert (alone.bits_per_byte_change_half_width, alone.is_difference_shown) == (float("inf"), False)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_no_quality(
    value: float, nested: Specimen, with_weight: Callable[[str, str, np.ndarray], Bundle], text: Path
) -> None:
    """Of the bundle or of its reference, of one token's logits or of all: the bundle is named; no figure is given."""
    bias = np.zeros(300)
    bias[ord("e")] = value
    broken = with_weight("1.post", "exit.logits.bias", bias)
    said = rf"^{re.escape(str(broken.path))} gives logits that are infinite or NaN on this text, expected numbers; convert a"
    for bundle, reference in ((broken, None), (nested.bundle, broken), (broken, broken)):
        with pytest.raises(CalibrationError, match=said):
            evaluate(bundle, [text], reference=reference, limit=2, threads=1)
    with pytest.raises(CalibrationError, match=said):
        probe([broken], [text], window=32, limit=2, threads=1)
