"""What holds of every stage graph, in whatever precision: it declares what its contract says."""

from __future__ import annotations

import onnx

from foveal.bundle import Bundle
from foveal.contract import contract_of


def check_graphs_are_their_contracts(bundle: Bundle) -> None:
    """Names, types and shapes are those of the contract, and onnx's checker has nothing to say."""
    for entry in bundle.manifest.stages:
        path = bundle.file(entry.graph)
        onnx.checker.check_model(str(path), full_check=True)
        graph, contract = onnx.load(path, load_external_data=False).graph, contract_of(entry.spec)
        for values, tensors in ((graph.input, contract.inputs), (graph.output, contract.outputs)):
            assert [value.name for value in values] == [tensor.name for tensor in tensors]
            for value, tensor in zip(values, tensors, strict=True):
                kind = value.type.tensor_type
                assert onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type) == tensor.dtype
                assert tuple(d.dim_param or d.dim_value for d in kind.shape.dim) == tensor.shape
