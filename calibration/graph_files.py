"""Reading the stage graphs of a bundle, whose files may be links as in the caches of model hubs."""

from __future__ import annotations

import os
from pathlib import Path

import onnx_ir as ir

from ..errors import BundleError, reason_of


def load_graph(path: Path) -> ir.Model:
    """A stage graph, whose weights are read when they are used.

    Raises:
        BundleError: it is not an ONNX graph, or not with the weights beside it.
    """
    try:
        model = ir.load(path)
        if not len(model.graph):
            raise ValueError("it computes nothing")
        _check_names(model)
        for value in model.graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value = _checked(value.const_value, path)
            elif value.const_value is not None:
                value.const_value.numpy()  # raises what is wrong with it
    except OSError:
        raise
    except Exception as error:  # protobuf's, onnx's and onnx-ir's share no base class
        raise BundleError(f"{path} is not a stage graph: {reason_of(error)}; convert the checkpoint again") from error
    return model


def _check_names(model: ir.Model) -> None:
    """protobuf gives out bytes where a name is not UTF-8."""
    owners: tuple[ir.Graph | ir.Function, ...] = (model.graph, *model.functions.values())
    for owner in owners:
        for node in owner.all_nodes():  # those of subgraphs too
            values = (value for value in (*node.inputs, *node.outputs) if value is not None)
            names = (node.name, node.op_type, node.domain, *node.attributes, *(value.name for value in values))
            for name in names:
                if isinstance(name, bytes):
                    raise ValueError(f"the name {name!r} is not UTF-8")


def _checked(tensor: ir.ExternalTensor, graph: Path) -> ir.ExternalTensor:
    """Weights that are there. onnx-ir reads no links unless it is told the path itself; a bundle's hashes were checked."""
    file = graph.parent / tensor.location
    if os.path.basename(tensor.location) != str(tensor.location):
        raise ValueError(f"its weights are at {tensor.location}, expected beside it")
    if file.is_symlink() or file.stat().st_nlink > 1:
        real = os.path.realpath(file)
        tensor = ir.ExternalTensor(real, tensor.offset, tensor.length, tensor.dtype, shape=tensor.shape, name=tensor.name or "")
    tensor.numpy()
    return tensor
