"""All claims measured on tiny models. No test here depends on a time."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from specimens import random_model
from store import Store

from foveal import ConfigError
from foveal.bench.claims.rare_words import measure_rare_words
from foveal.bench.claims.result import ClaimsResult
from foveal.bench.claims.run import first_bundle, measure_claims
from foveal.bench.claims.saving import save
from foveal.bench.claims.settings import Case, Settings, chosen_claims
from foveal.bench.claims.workshop import Workshop
from foveal.models.checkpoint import save_checkpoint
from foveal.models.text import train_tokenizer
from foveal.progress import silent

TINY = Settings(
    dim=16,
    heads=2,
    ff_dim=16,
    deep=(Case("1@4 1@1"),),
    vanilla=Case("2@1"),
    precisions=("fp32",),
    contexts=(8, 20),
    new_tokens=8,
    rounds=2,
    deepest=(Case("1@4 1@1"),),
    baselines=(Case("2@1"),),
    lengths=(40,),
    chunk=16,
    firing_tokens=16,
    shown=8,
    window=32,
)
LINES = "the sea and the ship and the storm\n" * 30 + "Mustaine saw the harbour\n"


def measure(directory: Path) -> None:
    """All claims in one run, on a text, checkpoints and bundles that stay."""
    (directory / "t.txt").write_text(LINES)
    bundles, checkpoints = directory / "bundles", make_checkpoints(directory)
    texts = [directory / "t.txt"]
    found = measure_claims((), bundles, settings=TINY, checkpoints=checkpoints, texts=texts, threads=1, command="test")
    (directory / "result.json").write_bytes(msgspec.json.encode(found))


def make_checkpoints(directory: Path) -> dict[str, Path]:
    """A vanilla checkpoint and one that claims twice its compute."""
    found, tokenizer = checkpoints_in(directory), train_tokenizer([LINES], 270)
    for seed, (name, hierarchy, choices) in enumerate(
        (("vanilla", "1@1", {}), ("coarse", "1@4 1@1", {"architecture": "top-down"}))
    ):
        save_checkpoint(random_model(hierarchy, seed, vocab_size=270, **choices), found[name], torch.float32)
        tokenizer.save(str(found[name] / "tokenizer.json"))
        training = {"flops_per_token": 10.0 * (seed + 1), "curve": [{"tokens": 3}, {"tokens": 7}], "more": 1}
        (found[name] / "training.json").write_bytes(msgspec.json.encode(training))
    return found


def checkpoints_in(directory: Path) -> dict[str, Path]:
    """By name."""
    return {name: directory / name for name in ("vanilla", "coarse")}


@pytest.fixture(scope="module")
def measured(store: Store) -> Path:
    """What `measure` left, once in a run; tests must not change it."""
    return store.once("claims", measure)


@pytest.fixture(scope="module")
def text(measured: Path) -> Path:
    """One word in it occurs once."""
    return measured / "t.txt"


@pytest.fixture(scope="module")
def checkpoints(measured: Path) -> dict[str, Path]:
    """A vanilla checkpoint and one that claims twice its compute."""
    return checkpoints_in(measured)


@pytest.fixture
def directory(measured: Path, tmp_path: Path) -> Path:
    """The bundles that there are, to add to."""
    return Path(shutil.copytree(measured / "bundles", tmp_path / "bundles"))


@pytest.fixture(scope="module")
def result(measured: Path) -> ClaimsResult:
    """What was measured."""
    return msgspec.json.decode((measured / "result.json").read_bytes(), type=ClaimsResult)


def test_speed(result: ClaimsResult) -> None:
    """Every model behind every past, beside the vanilla one; bytes and layers by arithmetic."""
    assert result.speed is not None
    assert [(case.model, case.context) for case in result.speed.cases] == [
        *(("top-down 1@4 1@1", 8), ("vanilla 2@1", 8), ("top-down 1@4 1@1", 20), ("vanilla 2@1", 20)),
    ]
    deep, vanilla = result.speed.cases[:2]
    assert (deep.layers, deep.layer_equivalents, deep.by_layers) == (2, 1.25, 2 / 1.25)
    assert (vanilla.speedup, vanilla.by_layers, vanilla.ms_where_coarse_fires) == (None, None, None)
    assert len(deep.speedup_by_round) == 2
    ratios = np.divide(deep.tokens_per_s_by_round, vanilla.tokens_per_s_by_round)
    np.testing.assert_allclose(deep.speedup_by_round, ratios)
    assert deep.speedup == pytest.approx(np.median(ratios))
    assert vanilla.cache_bytes_per_token == 2 * 2 * 16 * 4 * np.mean(range(9, 17))


def test_memory(result: ClaimsResult) -> None:
    """The parts of a process; rotary positions take none."""
    assert result.memory is not None
    assert result.memory.missing == []
    deep, vanilla = result.memory.cases
    assert (deep.tokens, vanilla.rows) == (40, 0)
    assert vanilla.caches == 2 * 2 * 16 * 4 * 40
    assert vanilla.tables == 256 * 16 * 4
    assert deep.caches == 2 * 16 * 4 * (40 + 10)
    for case in (deep, vanilla):
        assert case.peak is not None
        assert case.loaded is not None
        assert case.working == case.peak - case.loaded - case.state


def test_firing(result: ClaimsResult) -> None:
    """Counts, and the calls of the last tokens in their order."""
    assert result.firing is not None
    (model,) = result.firing.models
    assert [(stage.name, stage.firings) for stage in model.stages] == [("embed", 16), ("4", 4), ("1", 16)]
    assert model.layers_run_per_token == 1.25
    assert result.firing.verdict.answer == "holds"
    assert [call.token for call in model.calls if call.stage == "4"] == [11, 15]
    assert [call.token for call in model.calls if call.stage == "1"] == list(range(8, 16))
    ends = [time for call in model.calls for time in (call.begin_us, call.end_us)]
    assert ends == sorted(ends)
    assert ends[0] == 0


def test_rare_words(result: ClaimsResult, checkpoints: dict[str, Path]) -> None:
    """Groups add up to all positions; losses are PyTorch's."""
    assert result.rare_words is not None
    (model,) = result.rare_words.models
    assert (model.model, model.compute) == ("coarse", 2.0)
    assert sum(group.count for group in model.tokens) == model.overall.count
    total = sum(group.count * group.difference for group in model.tokens)
    assert total / model.overall.count == pytest.approx(model.overall.difference)
    assert model.overall.difference == pytest.approx(model.overall.nats - model.overall.vanilla_nats, abs=1e-6)
    once = model.words[0]
    assert (once.at_least, once.below) == (1, 2)
    assert once.count <= 3  # Mustaine, saw, harbour, as far as no border of a window cuts them
    assert sum(group.count for group in model.words) <= 30 * 8 + 4


def test_losses_are_those_of_the_model(checkpoints: dict[str, Path], directory: Path, tmp_path: Path) -> None:
    """One window, against PyTorch; with a single window there is no interval."""
    from tokenizers import Tokenizer

    short = tmp_path / "t.txt"
    short.write_text("the sea and the storm\n")
    found = measure_rare_words(Workshop(directory), TINY, checkpoints, [short], 1, silent)
    ids = torch.tensor([Tokenizer.from_file(str(checkpoints["vanilla"] / "tokenizer.json")).encode(short.read_text()).ids])
    with torch.no_grad():
        logits = random_model("1@1", 0, vocab_size=270)(ids)[0, :-1]
    (model,) = found.models
    assert found.windows == 1
    assert model.overall.vanilla_nats == pytest.approx(float(F.cross_entropy(logits, ids[0, 1:])), abs=1e-4)
    assert (model.overall.half_width, model.overall.answer) == (None, "no difference shown")


def test_order(result: ClaimsResult) -> None:
    """One probe for each checkpoint, under its name."""
    assert result.order is not None
    assert [found.bundle for found in result.order.probes] == ["vanilla", "coarse"]
    assert result.order.probes[0].window == 32


def test_it_is_saved_with_its_pictures(result: ClaimsResult, tmp_path: Path) -> None:
    """And can be read again."""
    written = save(tmp_path / "new", result)
    assert [path.name for path in written] == ["claims.json", "firing-top-down.svg", "order.svg"]
    assert msgspec.json.decode(written[0].read_bytes(), type=ClaimsResult) == result
    picture = written[1].read_text()
    for label in ("top-down 1@4 1@1", "4 (layers: 1)", "decoding tokens 8 to 15, ms"):
        assert f">{label}<" in picture


def test_seconds_and_threads_are_said(result: ClaimsResult) -> None:
    """Of each claim."""
    assert list(result.seconds) == ["speed", "memory", "firing", "rare-words", "order"]
    assert (result.threads, result.command) == (1, "test")


def test_claims_are_chosen_in_their_order() -> None:
    """None is all; a name that is none is told."""
    assert chosen_claims(()) == ("speed", "memory", "firing", "rare-words", "order")
    assert chosen_claims(["order", "speed"]) == ("speed", "order")
    with pytest.raises(ConfigError, match='unknown claim "spead"; expected some of speed, memory, firing, rare-words, order'):
        chosen_claims(["spead"])


def test_threads_are_measured_on_a_bundle_that_is_needed(
    directory: Path, checkpoints: dict[str, Path], result: ClaimsResult
) -> None:
    """No other is made for it."""
    before = sorted(directory.rglob("manifest.json"))
    for claim in ("speed", "memory", "firing", "rare-words", "order"):
        assert (first_bundle([claim], directory, TINY, checkpoints=checkpoints) / "manifest.json").is_file()
    assert sorted(directory.rglob("manifest.json")) == before


def test_checkpoints_that_can_not_be_compared(
    checkpoints: dict[str, Path], directory: Path, text: Path, tmp_path: Path
) -> None:
    """No vanilla one or two, nothing beside it, a window longer than a context, or another tokenizer."""
    workshop = Workshop(directory)
    vanilla = checkpoints["vanilla"]
    for given in ({}, {"coarse": checkpoints["coarse"]}, {"vanilla": vanilla}, {"vanilla": vanilla, "again": vanilla}):
        with pytest.raises(ConfigError, match=r"need one vanilla checkpoint, .*, and others to compare with it, got"):
            measure_rare_words(workshop, TINY, given, [text], 1, silent)
    for window in (1, 97):
        wrong = replace(TINY, window=window)
        with pytest.raises(ConfigError, match=rf"the window is {window} tokens, expected 2 to 96, the shortest context"):
            measure_rare_words(workshop, wrong, checkpoints, [text], 1, silent)
    save_checkpoint(random_model("1@4 1@1", architecture="top-down", vocab_size=258), tmp_path / "other", torch.float32)
    train_tokenizer(["x"], 256).save(str(tmp_path / "other" / "tokenizer.json"))
    given = {"vanilla": checkpoints["vanilla"], "other": tmp_path / "other"}
    with pytest.raises(ConfigError, match='"other" and "vanilla" read the text as different tokens'):
        measure_rare_words(workshop, TINY, given, [text], 1, silent)
