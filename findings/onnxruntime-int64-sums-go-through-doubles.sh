#!/bin/sh
# onnxruntime's ReduceSum of int64 goes through doubles: it rounds above 2**53 and saturates, where Add, MatMul and CumSum are exact.
#
# 2026-11-30; Python 3.11, onnxruntime 1.32.0 (CPU), onnx 1.23.2, numpy 2.4.6.
#
# What one would guess: integer operators of ONNX are integer arithmetic, that wraps as numpy's and PyTorch's does, so that a sum
# is a sum however it is written: a chain of Add, MatMul by ones, the last of CumSum, or ReduceSum.
#
# What happens: Add, Mul, MatMul and CumSum agree with numpy to the last bit, wrapping included. ReduceSum (and ReduceProd, and Pow)
# of the same int64 give what doubles give: the last bits are gone, and what would wrap stays at the largest int64.
#
# For those who export hashes of n-grams (BLT's embeddings of byte groups): written as sum(ids * powers), nearly every hash is another
# one, and a checkpoint decodes to fluent nonsense. Write the sum as a chain of Add.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
"${PYTHON:-python3}" -m venv "$place/venv"
"$place/venv/bin/pip" install -q onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
"$place/venv/bin/python" - 2>"$place/log" <<'PYTHON' || { cat "$place/log"; exit 1; }
import numpy as np
import onnxruntime
from onnx import TensorProto, helper

AXES = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
AXIS = helper.make_tensor("axis", TensorProto.INT64, [], [1])
ONES = helper.make_tensor("ones", TensorProto.INT64, [3, 1], [1, 1, 1])
WAYS = {
    "ReduceSum": ([helper.make_node("ReduceSum", ["x", "axes"], ["y"])], [AXES]),
    "Add": (
        [
            helper.make_node("Split", ["x"], ["a", "b", "c"], axis=1, num_outputs=3),
            helper.make_node("Add", ["a", "b"], ["ab"]),
            helper.make_node("Add", ["ab", "c"], ["y"]),
        ],
        [],
    ),
    "MatMul": ([helper.make_node("MatMul", ["x", "ones"], ["y"])], [ONES]),
    "CumSum": ([helper.make_node("CumSum", ["x", "axis"], ["y"])], [AXIS]),
}


def summed(way, row):
    nodes, tensors = WAYS[way]
    x = helper.make_tensor_value_info("x", TensorProto.INT64, [1, 3])
    y = helper.make_tensor_value_info("y", TensorProto.INT64, None)
    graph = helper.make_graph(nodes, way, [x], [y], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return int(session.run(None, {"x": np.array([row], np.int64)})[0].ravel()[-1])


for row in ([2**53 + 1, 1, 1], [2**62, 2**62, 1]):
    expected = int(np.array(row, np.int64).sum())
    found = {way: summed(way, row) for way in WAYS}
    print(row, "numpy", expected, found)
    assert [way for way in WAYS if found[way] != expected] == ["ReduceSum"], "changed: other operators differ"
assert found["ReduceSum"] == 2**63 - 1, "changed: it does not saturate"
PYTHON
