"""Bundles in which one thing is wrong, and whose hashes are right."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import onnx_ir as ir

from foveal.bundle import Bundle, Manifest, list_files, open_bundle, write_manifest
from foveal.contract.program import program_names
from foveal.export.graphs.saving import save_graph
from foveal.files import sha256_of
from foveal.sidecar import read_sidecar


def with_wrong_weight(bundle: Bundle, file: str, path: Path, product: str | None = None) -> Bundle:
    """A copy at `path` in which one weight matrix of a graph is wrong.

    Args:
        file: the graph, as the manifest names it.
        product: the product whose weight it is; None: the first in the graph.
    """

    def first_of_product(graph: ir.Model) -> str:
        return next(
            value.name
            for node in graph.graph
            if node.op_type == "MatMul" and product in (None, (node.name or "").removesuffix("/MatMul"))
            for value in node.inputs
            if value is not None and value.is_initializer()
        )

    def add_to_first_row(weight: np.ndarray) -> None:
        weight[0] += 0.5

    return with_altered_tensor(bundle, file, path, first_of_product, add_to_first_row)


def with_altered_tensor(
    bundle: Bundle, file: str, path: Path, choose: Callable[[ir.Model], str], alter: Callable[[np.ndarray], None]
) -> Bundle:
    """A copy at `path` in which one initializer of a graph is altered: `choose` gives its name, `alter` works in place.

    An engine's program of native steps, which holds the weights once more, is left out.
    """
    shutil.copytree(bundle.path, path, ignore=shutil.ignore_patterns("reports"), dirs_exist_ok=True)
    graph = ir.load(path / file)
    value = graph.graph.initializers[choose(graph)]
    wrong = value.const_value.numpy().copy()
    alter(wrong)
    value.const_value = ir.tensor(wrong, name=value.name)
    for initializer in graph.graph.initializers.values():  # what is saved over must not be mapped
        initializer.const_value = ir.tensor(initializer.const_value.numpy().copy(), name=initializer.name)
    save_graph(graph, path / file)
    for name in program_names(file):
        (path / name).unlink(missing_ok=True)
    bind_engines(path, bundle.manifest)
    write_manifest(path, msgspec.structs.replace(bundle.manifest, files=list_files(path)))
    return open_bundle(path)


def bind_engines(directory: Path, manifest: Manifest) -> None:
    """Let the sidecars of a bundle say that its engines are what lies there, made of the graphs that lie there."""
    graphs = {entry.spec.name: directory / entry.graph for entry in manifest.stages}
    for engines in manifest.engines.values():
        for stage, name in engines.items():
            engine, graph = directory / name, graphs.get(stage)
            known = msgspec.structs.replace(
                read_sidecar(engine),
                engine_sha256=_hash(engine),
                engine_data_sha256=_hash(engine.with_name(f"{engine.name}.data")),
                graph_sha256="" if graph is None else _hash(graph),
                graph_data_sha256="" if graph is None else _hash(graph.with_name(f"{graph.name}.data")),
            )
            engine.with_suffix(".json").write_bytes(msgspec.json.encode(known))


def _hash(path: Path) -> str:
    return sha256_of(path) if path.is_file() else ""
