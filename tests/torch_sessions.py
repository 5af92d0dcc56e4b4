"""Sessions of stages that PyTorch computes, of a model in memory: what holds of these holds of the model's cut into stages."""

from __future__ import annotations

import numpy as np
import torch
from specimens import random_ids
from torch import nn

from foveal.bundle import ModelInfo
from foveal.export.comparison.torch_engine import TorchEngine
from foveal.models.architecture import Architecture
from foveal.runtime.session import Session


def torch_session(model: Architecture, batch: int = 1, capacity: int | None = None) -> Session:
    """An empty session."""
    described = model.describe()
    info = ModelInfo(
        architecture=described.architecture,
        source_format="test",
        hierarchy=described.hierarchy,
        vocab_size=described.vocab_size,
        dim=described.dim,
        max_positions=described.max_positions,
        context=described.context,
        parameters=0,
        layer_equivalents=1.0,
    )
    return Session([TorchEngine(stage) for stage in model.stages()], info, batch, capacity)


def logits_of(model: Architecture, ids: np.ndarray) -> np.ndarray:
    """The full forward of ids `[B, L]`."""
    with torch.no_grad():
        return model(torch.from_numpy(ids)).numpy()


def check_prefix(model: Architecture, length: int, prefix: int, tolerance: float) -> None:
    """A prefix has the logits of the whole."""
    ids = random_ids(2, length)
    np.testing.assert_allclose(logits_of(model, ids[:, :prefix]), logits_of(model, ids)[:, :prefix], atol=tolerance)


def check_causality(model: Architecture, length: int, changed: int, tolerance: float) -> None:
    """Another token changes its own logits, and none before it."""
    ids = random_ids(1, length)
    other = ids.copy()
    other[0, changed] = (other[0, changed] + 1) % 41
    before, after = logits_of(model, ids), logits_of(model, other)
    np.testing.assert_allclose(before[:, :changed], after[:, :changed], atol=tolerance)
    assert not np.allclose(before[:, changed], after[:, changed])


def shake(model: nn.Module, seed: int) -> None:
    """Random weights, in place, none of which is zero or one, so that no term can vanish unnoticed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.15)
    model.eval()
