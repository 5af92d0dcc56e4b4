#!/bin/sh
# onnxscript's optimiser takes time that grows with the square of a graph's nodes, for one rule about slices, in graphs without any.
#
# 2026-11-29; Python 3.11, onnxscript 0.7.2, onnx-ir 1.1.0, onnx 1.23.2, numpy 2.4.6.
#
# What one would guess: a rewrite rule is tried at nodes of the operator that its pattern ends in, so a rule that joins two Slices
# into a Split costs nothing in a graph that has no Slice, and the default rules take time in proportion to the nodes.
#
# What happens: 46 rules are tried at every node. The pattern of SlicesSplit has two ends, for which the matcher first sorts all nodes of the graph by
# operator, anew at each node, before it looks whether this one is a Slice. From 1,000 to 4,000 Adds the time grows 11 times, not 4, and that one
# rule takes most of it; without it time is in proportion. `torch.onnx.export(dynamo=True)` ends with these rules (optimize=True is its default).
#
# For those whose exports of many-layer models stand still for minutes after "translated": see whether it is this.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
"${PYTHON:-python3}" -m venv "$place/venv"
"$place/venv/bin/pip" install -q onnxscript==0.7.2 onnx-ir==1.1.0 onnx==1.23.2 numpy==2.4.6
"$place/venv/bin/python" - <<'PYTHON'
import time

import onnx
import onnx_ir as ir
from onnx import TensorProto, helper
from onnxscript import rewriter

rules = list(rewriter._DEFAULT_REWRITE_RULES)
others = [rule for rule in rules if str(rule) != "SlicesSplit"]
assert len(others) == len(rules) - 1, "changed: no rule SlicesSplit among the defaults"


def seconds(nodes, rules):
    """CPU time of the rules on a chain of Adds, none of which any rule changes."""
    names = ["x", *(f"v{i}" for i in range(nodes))]
    chain = [helper.make_node("Add", [a, "x"], [b]) for a, b in zip(names, names[1:])]
    rows = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", 4]) for name in ("x", names[-1])]
    model = helper.make_model(helper.make_graph(chain, "chain", rows[:1], rows[1:]), opset_imports=[helper.make_opsetid("", 20)])
    loaded = ir.from_proto(model)
    began = time.process_time()
    result = rewriter.RewritePass(rules)(loaded)
    assert not result.modified, "changed: a rule applies to a chain of Adds"
    return time.process_time() - began


seconds(100, rules)  # imports
found = {n: (seconds(n, rules), seconds(n, others)) for n in (1000, 4000)}
for n, (all_rules, without) in found.items():
    print(f"{n} nodes: default rules {all_rules:.2f} s, without SlicesSplit {without:.2f} s")
growth = [found[4000][i] / found[1000][i] for i in (0, 1)]
print(f"4 times the nodes: {growth[0]:.1f} times the time; without SlicesSplit {growth[1]:.1f} times")
assert growth[0] > 8, "changed: the default rules grow with the nodes"
assert growth[1] < 6, "changed: the other rules grow faster than the nodes"
assert found[4000][0] > 3 * found[4000][1], "changed: SlicesSplit takes no more than the others"
PYTHON
