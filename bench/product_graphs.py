"""Graphs of matrix products alone, by the operators that CPU engines have for each format.

fp32: MatMul; int8: MatMulIntegerToFloat behind QuantizeLinear; w8, w4: MatMulNBits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..runtime.engines.onnxruntime_library import import_onnxruntime, session_options

_BLOCKS = {"w8": 256, "w4": 32}
Shape = tuple[int, int]


class ProductGraph:
    """`count` times the products of the same row or rows with matrices `[K, N]` of some shapes, each its own, in one graph.

    Args:
        name: `fp32`, `int8`, `w8` or `w4`.
        shapes: K and N, of one matrix or of several that follow one another.
        count: how often.
        threads: of ONNX Runtime.
    """

    def __init__(self, name: str, shapes: Sequence[Shape], count: int, threads: int) -> None:
        from onnx import TensorProto, helper, numpy_helper

        self._shapes = [shape for _ in range(count) for shape in shapes]
        self.bytes = count * sum(product_bytes(name, shape) for shape in shapes)
        widths = sorted({k for k, _ in shapes})
        rows = [helper.make_tensor_value_info(f"x{k}", TensorProto.FLOAT, ["rows", k]) for k in widths]
        results, initializers, nodes = [], [], []
        for i, shape in enumerate(self._shapes):
            results.append(helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, ["rows", shape[1]]))
            weights = _weights(name, shape, i)
            initializers += [numpy_helper.from_array(np.asarray(value), f"{key}{i}") for key, value in weights.items()]
            nodes += _nodes(name, shape, str(i))
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        graph = helper.make_graph(nodes, "products", rows, results, initializers)
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        options, runtime = session_options(threads), import_onnxruntime()
        self._session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def call(self, rows: int) -> Callable[[], None]:
        """Runs them all, for so many rows at once."""
        kept, binding = [], self._session.io_binding()
        for k in {k for k, _ in self._shapes}:
            given = np.ones((rows, k), np.float32)
            binding.bind_input(f"x{k}", "cpu", 0, np.float32, (rows, k), given.ctypes.data)
            kept.append(given)
        taken = np.empty((rows, max(n for _, n in self._shapes)), np.float32)
        for i, (_, n) in enumerate(self._shapes):
            binding.bind_output(f"y{i}", "cpu", 0, np.float32, (rows, n), taken.ctypes.data)

        def once() -> None:
            self._session.run_with_iobinding(binding)

        once.kept = kept, taken  # type: ignore[attr-defined]
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
        return [helper.make_node("MatMul", [f"x{shape[0]}", f"w{i}"], [f"y{i}"])]
    if name == "int8":
        given = [f"q{i}", *(f"{key}{i}" for key in ("w", "xs", "s", "xz", "wz"))]
        return [
            helper.make_node("QuantizeLinear", [f"x{shape[0]}", f"xs{i}", f"xz{i}"], [f"q{i}"]),
            helper.make_node("MatMulIntegerToFloat", given, [f"y{i}"], domain=own),
        ]
    sizes: dict[str, Any] = {"K": shape[0], "N": shape[1]}
    sizes |= {"bits": int(name[1:]), "block_size": min(_BLOCKS[name], shape[0]), "accuracy_level": 4}
    return [helper.make_node("MatMulNBits", [f"x{shape[0]}", f"w{i}", f"s{i}"], [f"y{i}"], domain=own, **sizes)]
