"""Stage graphs that are damaged: one line with the file, whatever the libraries that read it make of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from specimens import Zoo

from foveal import BundleError
from foveal.calibration.graph_files import load_graph


@pytest.mark.parametrize("damage", [b"\x85", b"\xff"])
def test_a_name_that_is_no_text(zoo: Zoo, tmp_path: Path, damage: bytes) -> None:
    """protobuf gives such a name as bytes."""
    shutil.copytree(zoo["vanilla"].bundle.path / "stages", tmp_path / "stages")
    (graph,) = (tmp_path / "stages").glob("*.onnx")
    name, data = b"/feed_forward/up/MatMul", graph.read_bytes()
    assert name in data
    graph.write_bytes(data.replace(name, damage + name[1:]))
    with pytest.raises(BundleError, match=r"1\.onnx is not a stage graph: the name b'.*' in it is no text; convert"):
        load_graph(graph)
