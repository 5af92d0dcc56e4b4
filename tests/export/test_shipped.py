"""The checkpoints that come with foveal: they convert, and their bundles are the models."""

from __future__ import annotations

from pathlib import Path

import pytest
from combinations import but_deep

from foveal import convert
from foveal.export import verify
from foveal.models import SHIPPED, SHIPPED_BYTES

CHECKPOINTS = {**SHIPPED, **SHIPPED_BYTES}


@pytest.mark.parametrize("name", but_deep(["bytes_vanilla"], CHECKPOINTS))
def test_a_shipped_checkpoint_converts_and_verifies(name: str, tmp_path: Path) -> None:
    """Trained weights, whose logits are farther apart than random ones', over the whole context."""
    bundle = convert(CHECKPOINTS[name], tmp_path / "b")
    report = verify(bundle, CHECKPOINTS[name])
    report.require_equal()
    assert bundle.manifest.tokenizer is not None
