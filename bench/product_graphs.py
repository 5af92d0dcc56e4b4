"""Graphs of matrix products alone, by the operators that CPU engines have for each format.

fp32: MatMul; int8: MatMulIntegerToFloat behind QuantizeLinear; w8, w4: MatMulNBits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ..runtime.engines.onnxruntime_library import import_onnxruntime, session_options

_BLOCKS = {"w8": 256, "w4": 32}
Shape = tuple[int, int]


class ProductGraph:
    """`count` products of the same row or rows with matrices `[K, N]` of their own, all in one graph.

    Args:
        name: `fp32`, `int8`, `w8` or `w4`.
        shape: K and N.
        count: of the matrices.
        threads: of ONNX Runtime.
    """

    def __init__(self, name: str, shape: Shape, count: int, threads: int) -> None:
        from onnx import TensorProto, helper, numpy_helper

        (k, n), each = shape, [_weights(name, shape, number) for number in range(count)]
        self.shape, self.count, self.bytes = shape, count, count * product_bytes(name, shape)
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", k])
        results = [helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, ["rows", n]) for i in range(count)]
        initializers = [
            numpy_helper.from_array(np.asarray(value), f"{key}{i}")
            for i, weights in enumerate(each)
            for key, value in weights.items()
        ]
        nodes = [node for i in range(count) for node in _nodes(name, shape, str(i))]
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        graph = helper.make_graph(nodes, "products", [x], results, initializers)
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        options, runtime = session_options(threads), import_onnxruntime()
        self._session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def call(self, rows: int) -> Callable[[], None]:
        """Runs them all, for so many rows at once."""
        k, n = self.shape
        given = np.random.default_rng(0).standard_normal((rows, k)).astype(np.float32)
        taken, binding = np.empty((rows, n), np.float32), self._session.io_binding()
        binding.bind_input("x", "cpu", 0, np.float32, (rows, k), given.ctypes.data)
        for i in range(self.count):
            binding.bind_output(f"y{i}", "cpu", 0, np.float32, (rows, n), taken.ctypes.data)

        def once() -> None:
            self._session.run_with_iobinding(binding)

        once.kept = given, taken  # type: ignore[attr-defined]
        return once


def product_bytes(name: str, shape: Shape) -> int:
    """Bytes of one matrix, scales of blocks included."""
    weights = _weights(name, shape, 0)
    size: int = weights["w"].nbytes + (weights["s"].nbytes if "s" in weights else 0)
    return size


def _weights(name: str, shape: Shape, seed: int) -> dict[str, Any]:
    """Each its own, and so in the first number: equal ones would be kept once."""
    k, n = shape
    if name == "fp32":
        return {"w": _distinct(np.full((k, n), 0.5, np.float32), seed)}
    if name == "int8":
        scales = {"s": np.full(n, 0.01, np.float32), "xs": np.float32(0.03), "xz": np.uint8(128)}
        return {"w": _distinct(np.full((k, n), 63, np.int8), seed), **scales, "wz": np.zeros(n, np.int8)}
    block = min(_BLOCKS[name], k)
    scales = {"s": np.full((n, k // block), 0.01, np.float32)}
    return {"w": _distinct(np.full((n, k // block, block * int(name[1:]) // 8), 63, np.uint8), seed), **scales}


def _distinct(weights: npt.NDArray[Any], seed: int) -> npt.NDArray[Any]:
    """Of the first four bytes one combination for each seed: small enough for any format."""
    weights.reshape(-1).view(np.uint8)[:2] = seed & 63, seed >> 6 & 63
    return weights


def _nodes(name: str, shape: Shape, i: str) -> list[Any]:
    from onnx import helper

    own = "com.microsoft"
    if name == "fp32":
        return [helper.make_node("MatMul", ["x", f"w{i}"], [f"y{i}"])]
    if name == "int8":
        given = [f"q{i}", *(f"{key}{i}" for key in ("w", "xs", "s", "xz", "wz"))]
        return [
            helper.make_node("QuantizeLinear", ["x", f"xs{i}", f"xz{i}"], [f"q{i}"]),
            helper.make_node("MatMulIntegerToFloat", given, [f"y{i}"], domain=own),
        ]
    sizes: dict[str, Any] = {"K": shape[0], "N": shape[1]}
    sizes |= {"bits": int(name[1:]), "block_size": min(_BLOCKS[name], shape[0]), "accuracy_level": 4}
    return [helper.make_node("MatMulNBits", ["x", f"w{i}", f"s{i}"], [f"y{i}"], domain=own, **sizes)]
