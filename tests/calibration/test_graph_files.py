"""Stage graphs are read, or refused in one line; links as in the caches of model hubs are followed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from specimens import Specimen

from foveal import Bundle, BundleError
from foveal.calibration.graph_files import load_graph
from foveal.export import verify

GRAPH = "stages/4.onnx"


def with_bytes(change: Callable[[bytes], bytes], bundle: Bundle) -> Path:
    """The graph, altered."""
    path = bundle.path / GRAPH
    path.write_bytes(change(path.read_bytes()))
    return path


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: data.replace(b"/MatMul", b"/\xffatMul"), r"the name b'.*/\\xffatMul.*' is not UTF-8"),
        (lambda data: data.replace(b"Attention", b"Attenti\xffn"), r"the name b'.*\\xff.*' is not UTF-8"),
        (lambda data: data[: len(data) // 2], ""),
        (lambda data: b"", "it computes nothing"),
        (lambda data: b"no such thing", ""),
    ],
)
def test_files_that_are_no_graphs(change: Callable[[bytes], bytes], reason: str, bundle: Bundle) -> None:
    """Cut short, empty, or with names that are no text, which protobuf gives out as bytes."""
    path = with_bytes(change, bundle)
    said = rf"^{path} is not a stage graph: .*{reason}.*; convert the checkpoint again$"
    with pytest.raises(BundleError, match=said) as caught:
        load_graph(path)
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_beside_it(bundle: Bundle) -> None:
    """Nor anywhere else in the bundle."""
    path = bundle.path / GRAPH
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = "../elsewhere" if entry.key == "location" else entry.value
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match="is not a stage graph: its weights are at ../elsewhere, expected beside it"):
        load_graph(path)


def test_a_bundle_of_links_is_verified(nested: Specimen, tmp_path: Path) -> None:
    """Weights are compared through them, too."""
    blobs = Path(shutil.copytree(nested.bundle.path, tmp_path / "blobs"))
    for file in sorted(path for path in blobs.rglob("*") if path.is_file() and "reports" not in path.parts):
        link = tmp_path / "b" / file.relative_to(blobs)
        link.parent.mkdir(parents=True, exist_ok=True)
        os.symlink(file, link)
    verify(tmp_path / "b", nested.model).require_equal()


def test_names_in_subgraphs_are_looked_at_too(bundle: Bundle) -> None:
    """As of the branches of an If."""
    path = bundle.path / GRAPH
    model = onnx.load(path, load_external_data=False)
    found = onnx.helper.make_tensor_value_info("found", onnx.TensorProto.FLOAT, [1])
    branch = onnx.helper.make_graph([onnx.helper.make_node("Neg", ["x"], ["found"], name="branch/node")], "branch", [], [found])
    model.graph.node.append(onnx.helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch))
    path.write_bytes(model.SerializeToString().replace(b"branch/node", b"branch/\xffode"))
    with pytest.raises(BundleError, match=r"the name b'branch/\\xffode' is not UTF-8"):
        load_graph(path)
