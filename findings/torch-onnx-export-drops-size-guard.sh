#!/bin/sh
# torch.onnx.export turns a length that it guards into a constant, and says nothing: rows go missing at other lengths.
#
# 2026-11-29; Python 3.11, torch 2.13.0 (CPU), onnx 1.23.2, onnxscript 0.7.2, onnxruntime 1.32.0, numpy 2.4.6.
#
# What one would guess: a module that loops over `x.shape[1] // 8` fixes the number of rows, so exporting it with that dimension
# declared dynamic, `8 * Dim("L")`, fails ("constraints violated") as it does for int(x.shape[1]).
#
# What happens: torch.export.export raises nothing. It keeps the guard `size // 8 == 3` in the exported program, which does raise
# when that is called at another length. torch.onnx.export has no place for guards: the ONNX graph still declares its input as
# `8*L`, its output as [1, 3], and ONNX Runtime answers an input of 32 with 3 rows, where PyTorch gives 4. No warning says so.
#
# For those who export models with a Python loop over a pooled or chunked axis: run every graph at a second size.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
"${PYTHON:-python3}" -m venv "$place/venv"
"$place/venv/bin/pip" install -q torch==2.13.0 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0 numpy==2.4.6
"$place/venv/bin/python" - 2>"$place/log" <<'PYTHON' || { cat "$place/log"; exit 1; }
import numpy as np
import onnxruntime
import torch


class Pool(torch.nn.Module):
    """The sum of every eight entries."""

    def forward(self, x):
        return torch.stack([x[:, 8 * i : 8 * i + 8].sum(1) for i in range(x.shape[1] // 8)], 1)


dynamic = {"x": {1: 8 * torch.export.Dim("L", min=2, max=64)}}
model, example = Pool().eval(), (torch.ones(1, 24),)

exported = torch.export.export(model, example, dynamic_shapes=dynamic)
print("torch.export.export: no error")
try:
    exported.module()(torch.ones(1, 32))
    raise SystemExit("changed: the exported program takes 32 entries")
except AssertionError as error:
    print(f"its program at 32 entries: {error}")

onnx_model = torch.onnx.export(model, example, dynamic_shapes=dynamic, dynamo=True, verbose=False).model_proto
sizes = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in (*onnx_model.graph.input, *onnx_model.graph.output)}
print(f"the ONNX graph declares: {sizes}")
session = onnxruntime.InferenceSession(onnx_model.SerializeToString(), providers=["CPUExecutionProvider"])
(rows,) = session.run(None, {"x": np.ones((1, 32), np.float32)})
print(f"ONNX Runtime at 32 entries: {rows.shape[1]} rows; PyTorch: {model(torch.ones(1, 32)).shape[1]}")
assert list(sizes.values()) == [[1, "8*L"], [1, 3]], "changed: other sizes are declared"
assert rows.shape == (1, 3), "changed: the graph has other rows"
PYTHON
