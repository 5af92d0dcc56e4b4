"""What torch's exporter is spared changes no graph."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from specimens import GOLDEN, random_model
from torch import Tensor, nn
from torch.onnx._internal.exporter import _registration

from foveal.export.graphs import export_stage as exporting
from foveal.export.graphs.dialect import MODERN
from foveal.export.graphs.quick_exporter import savings
from foveal.models.architecture import Architecture
from foveal.models.readers.loading import load_model

FAMILIES = GOLDEN.parent / "golden_families"
OTHERS = (
    "megabyte_4x3x5_rotary",
    "megabyte_7x5_learned",
    "notagen_tiny",
    "block_transformer_tiny",
    "trax_h3_attn",
    "dynamic_pooling_tiny",
)
MODELS: list[Any] = [
    pytest.param(lambda: random_model("2@1"), id="learned positions"),
    pytest.param(lambda: random_model("1@1", positions="rotary"), id="rotary"),
    pytest.param(lambda: random_model("1@1", architecture="retina"), id="retina", marks=pytest.mark.deep),
    *(pytest.param(lambda name=name: load_model(FAMILIES / name).model, id=name, marks=pytest.mark.deep) for name in OTHERS),
]


def nodes_and_weights(path: Path) -> tuple[int, list[tuple[tuple[int, ...], bytes]]]:
    """How many nodes a graph has (some sizes are worked out in other words, `4 * n` for `m`), and its weights, in any order."""
    graph = onnx.load(path).graph
    tensors = [onnx.numpy_helper.to_array(tensor, base_dir=str(path.parent)) for tensor in graph.initializer]
    return len(graph.node), sorted((value.shape, value.tobytes()) for value in tensors if value.dtype == np.float32)


@pytest.mark.parametrize("make", MODELS)
def test_graphs_have_as_many_nodes_and_the_same_weights(
    make: Callable[[], Architecture], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with the exporter left alone; that their logits are the model's is what most other tests are about."""
    stages = make().stages()
    for stage in stages:
        exporting.export_stage(stage, tmp_path / "quick" / f"{stage.spec.name}.onnx", MODERN)
    monkeypatch.setattr(exporting, "savings", nullcontext)
    for stage in stages:
        exporting.export_stage(stage, tmp_path / "plain" / f"{stage.spec.name}.onnx", MODERN)
        quick, plain = (nodes_and_weights(tmp_path / kind / f"{stage.spec.name}.onnx") for kind in ("quick", "plain"))
        assert quick == plain


class Decomposed(nn.Module):
    """`tensor_split` is no operator that torch's exporter translates."""

    def forward(self, x: Tensor, ids: Tensor) -> Tensor:
        """`[B, 6]` twice -> `[B, 6]`."""
        first, second = torch.tensor_split(x, [2], dim=1)
        return torch.cat([second, first], 1)


class MixedTypes(nn.Module):
    """Operands of different types, casts that change something and some that do not, and a square."""

    def forward(self, x: Tensor, ids: Tensor) -> Tensor:
        """`[B, 6]` twice -> `[B, 6]`."""
        odd = (ids % 2 == 1) & (x > 0) | (ids == 0)
        return (x + ids).square() * odd.to(x.dtype) + ids.float().to(torch.float32) / 3


class Written(nn.Module):
    """A tensor is written into, in place."""

    def forward(self, x: Tensor, ids: Tensor) -> Tensor:
        """`[B, 6]` twice -> `[B, 6]`."""
        y = x * 2
        y[:, 1:3] = 7.0
        return y.add_(ids)


@pytest.mark.parametrize("module", [Decomposed(), MixedTypes(), Written()], ids=lambda module: type(module).__name__)
def test_other_modules_are_exported_as_they_compute(module: nn.Module) -> None:
    """What needs decomposing, converting or other storage still gets it."""
    batch = torch.export.Dim("B", min=1)
    example = (torch.zeros(2, 6), torch.zeros(2, 6, dtype=torch.int64))
    with savings(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        program = torch.onnx.export(
            module.eval(),
            example,
            dynamo=True,
            opset_version=MODERN.opset,
            dynamic_shapes=({0: batch}, {0: batch}),
            verbose=False,
        )
    assert_computes(program, module)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("torch.onnx._internal.exporter._fx_passes", "decompose_with_registry"),
        ("torch.onnx._internal.fx.passes.type_promotion", "TypePromotionTable"),
        ("onnxscript.rewriter._matcher", "SimplePatternMatcher"),
    ],
)
def test_a_version_that_lacks_what_is_replaced(module: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else is patched half, and what there is is patched."""
    monkeypatch.delattr(importlib.import_module(module), name)
    before = _registration.ONNXRegistry.from_torchlib
    with savings():
        assert _registration.ONNXRegistry.from_torchlib != before
    assert _registration.ONNXRegistry.from_torchlib == before


def assert_computes(program: torch.onnx.ONNXProgram | None, module: nn.Module) -> None:
    """What the module does, at another size than it was exported with."""
    assert program is not None
    x, ids = torch.linspace(-2, 2, 18).reshape(3, 6), torch.arange(18).reshape(3, 6)
    evaluator = ReferenceEvaluator(program.model_proto)
    (found,) = evaluator.run(None, dict(zip(evaluator.input_names, (x.numpy(), ids.numpy()), strict=True)))
    np.testing.assert_allclose(found, module(x, ids).numpy(), rtol=1e-6)
