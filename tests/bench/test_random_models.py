"""Models of random weights, of any architecture of foveal's own."""

from __future__ import annotations

import pytest
import torch

from foveal import ConfigError
from foveal.bench.random_models import RandomModels, architecture_of
from foveal.models.dynamic.model import Dynamic

SIZES = RandomModels(dim=16, heads=2, ff_dim=16, vocab_size=20, context=32)


@pytest.mark.parametrize(
    ("hierarchy", "architecture"),
    [
        ("2@1 8@4 2@1", "hourglass"),
        ("14@1", "hourglass"),
        ("2@16 1@4 1@1", "top-down"),
        ("1@1 1@4 1@16 1@1", "bottom-up"),
        ("1@1 2@~4 1@1", "dynamic"),
    ],
)
def test_the_order_of_levels_says_the_architecture(hierarchy: str, architecture: str) -> None:
    """And the model that is built is of it."""
    assert architecture_of(hierarchy) == architecture
    assert SIZES.build(hierarchy).config.architecture == architecture


def test_an_architecture_can_be_named() -> None:
    """Where the order does not say it."""
    assert SIZES.build("1@1 1@4 1@1", "bottom-up").config.architecture == "bottom-up"
    retina = RandomModels(16, 2, 16, 20, 64, "rotary").build("2@1", "retina")
    assert (retina.config.architecture, retina.config.positions) == ("retina", "learned")


def test_a_model_that_decides_fires_at_the_rate_of_its_hierarchy() -> None:
    """On random tokens, so that it costs what a trained one does."""
    model = RandomModels(16, 2, 16, 200, 512).build("1@1 1@~4 1@1")
    assert isinstance(model, Dynamic)
    assert model.boundaries(torch.randint(0, 200, (16, 256))).float().mean() == pytest.approx(0.25, abs=0.05)


def test_a_malformed_hierarchy() -> None:
    """Is told as an Hourglass's."""
    with pytest.raises(ConfigError, match=r'malformed hierarchy "1@4 1@1 1@2": .* write for instance "2@1 8@4 2@1"'):
        SIZES.build("1@4 1@1 1@2")


def test_pytorch_decodes_hourglasses_only() -> None:
    """The others have no incremental decoding there."""
    with pytest.raises(ConfigError, match=r'only Hourglass and vanilla models .* got "1@4 1@1"; leave --eager out'):
        SIZES.eager(["1@1", "1@4 1@1"])
