"""What torch's exporter is spared changes no graph."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
from specimens import random_model

from foveal.export.graphs import export_stage as exporting
from foveal.export.graphs.dialect import MODERN


@pytest.mark.parametrize("choices", [{}, {"positions": "rotary"}], ids=["learned", "rotary"])
def test_a_graph_is_the_same_byte_for_byte(choices: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with the exporter left alone, weights included."""
    (stage,) = random_model("2@1", **choices).stages()
    exporting.export_stage(stage, tmp_path / "quick" / "1.onnx", MODERN)
    monkeypatch.setattr(exporting, "savings", nullcontext)
    exporting.export_stage(stage, tmp_path / "plain" / "1.onnx", MODERN)
    for name in ("1.onnx", "1.onnx.data"):
        assert (tmp_path / "quick" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
