"""A BLT against transformers' own: thresholds, ratios and counts. No test depends on a time."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from rich.console import Console

from foveal import ConfigError
from foveal.bench.deciding.against_result import BLT, ORIGINAL, VANILLA, AgainstResult, contender, ratios_of, show
from foveal.bench.deciding.against_transformers import measure, vanilla_layers
from foveal.bench.deciding.original import BltSizes, parameters_of, random_original, read_bytes, threshold_for
from foveal.bench.decode import Load
from foveal.bench.random_models import RandomModels

TEXT = (Path(__file__).parents[3] / "models" / "checkpoints" / "text" / "evaluation.txt").read_text(encoding="utf-8")[:3000]
TINY = BltSizes(
    dim=16,
    head_dim=8,
    ff_dim=24,
    decoder_layers=2,
    middle_dim=32,
    middle_head_dim=8,
    middle_ff_dim=40,
    middle_layers=2,
    patcher_dim=16,
    patcher_ff_dim=24,
    patcher_layers=1,
    hash_rows=50,
    context=256,
)


@pytest.fixture(scope="module")
def result() -> AgainstResult:
    """Of a tiny BLT: 45 bytes behind 32."""
    return measure(TEXT, Load(32, 45, 2), original_bytes=3, threads=1, sizes=TINY, command="test")


def test_both_compute_the_same(result: AgainstResult) -> None:
    """What is timed are the same logits."""
    assert result.logits_differ < 1e-4


def test_firings_are_counted(result: AgainstResult) -> None:
    """The threshold was set on these bytes: one in 4.5 of them ends a patch; in int8 about as many."""
    by_name = {(one.name, one.precision): one for one in result.contenders}
    assert by_name[BLT, "fp32"].fires == {"patcher": 45, "encoder": 45, "global": 10, "decoder": 45}
    assert by_name[BLT, "int8"].fires["global"] == pytest.approx(10, abs=4)
    assert by_name[VANILLA, "fp32"].fires == {"1": 45}
    assert by_name[ORIGINAL, "fp32"].bytes_per_round == 3


def test_it_survives_json_and_is_shown(result: AgainstResult) -> None:
    """Every system, and each ratio with its rounds."""
    assert msgspec.json.decode(msgspec.json.encode(result), type=AgainstResult) == result
    console = Console(width=160, record=True)
    show(result, console)
    text = console.export_text()
    for part in ("BLT int8", "vanilla fp32", "BLT, transformers fp32", "global 10", "times vanilla int8"):
        assert part in text


def test_ratios_are_within_rounds() -> None:
    """Over the original in fp32, and over the vanilla model of the same precision; medians."""
    found = ratios_of(
        [
            contender(BLT, "int8", 9, 5, [30.0, 40.0, 90.0]),
            contender(VANILLA, "int8", 9, 5, [10.0, 20.0, 30.0]),
            contender(ORIGINAL, "fp32", 9, 1, [1.0, 2.0, 1.0]),
        ]
    )
    assert [(ratio.over, ratio.times, ratio.by_round) for ratio in found] == [
        (ORIGINAL, 30.0, [30.0, 20.0, 90.0]),
        (VANILLA, 3.0, [3.0, 2.0, 3.0]),
    ]


@pytest.mark.parametrize("bytes_per_patch", [1, 2, 4.5, 9])
def test_thresholds_are_between_neighbours(bytes_per_patch: float) -> None:
    """With exactly the share above that was asked for."""
    values = np.random.default_rng(0).random(90).astype(np.float32)
    assert (values > threshold_for(values, bytes_per_patch)).sum() == 90 / bytes_per_patch


def test_patches_that_can_not_be() -> None:
    """Of less than a byte, or longer than the text."""
    with pytest.raises(ConfigError, match=r"patches are to have 0\.5 bytes on average, expected at least 1"):
        random_original(TINY, read_bytes("text")[None], 0.5)
    with pytest.raises(ConfigError, match="the text has 4 bytes, expected enough for patches of 99"):
        threshold_for(np.arange(4.0), 99)


def test_a_text_that_is_too_short() -> None:
    """Said before anything is converted."""
    with pytest.raises(ConfigError, match="the text has 9 tokens, expected at least 77"):
        measure("too short", Load(32, 45, 2), original_bytes=3, threads=1, sizes=TINY)


def test_parameters_by_part() -> None:
    """Tables are looked up row by row: those of hashes and bytes. All parts are all parameters."""
    model = random_original(TINY, read_bytes(TEXT[:100])[None], 4.5)
    parts = parameters_of(model)
    assert list(parts) == ["patcher", "encoder", "global", "decoder", "tables"]
    assert parts["tables"] == 6 * 50 * 16 + 260 * 16 + 260 * 16
    assert sum(parts.values()) == sum(value.numel() for value in model.parameters())


def test_the_published_proportions() -> None:
    """A quarter of the widths of facebook/blt-1b; with its rates and heads."""
    sizes = BltSizes()
    assert (sizes.dim, sizes.middle_dim, sizes.patcher_dim) == (1024 // 4, 2048 // 4, 768 // 4)
    assert (sizes.ff_dim, sizes.middle_ff_dim, sizes.patcher_ff_dim) == (2816 // 4, 5632 // 4, 2048 // 4)


def test_a_vanilla_model_of_as_many_parameters() -> None:
    """Never of no layer."""
    sizes = RandomModels(dim=16, heads=2, ff_dim=64, vocab_size=260, context=64, positions="rotary")
    three = sum(value.numel() for value in sizes.build("3@1").parameters())
    assert [vanilla_layers(sizes, count) for count in (0, three - 100, three, three + 100)] == [1, 3, 3, 3]
