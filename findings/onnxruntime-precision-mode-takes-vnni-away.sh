#!/bin/sh
# session.x64quantprecision=1 makes int8 products half as fast on a CPU with VNNI, where it has nothing to correct.
#
# 2026-11-30; Python 3.11, onnxruntime 1.32.0, onnx 1.19.1, an AMD EPYC with AVX-512 VNNI.
#
# What one would guess: the header says that the setting is for "x64 SSE4.1/AVX2/AVX512 (with no VNNI)", whose products of unsigned by signed
# bytes saturate; so set always, it costs something only there.
#
# What happens: it applies wherever ONNX Runtime has one table of kernels for u8 x u8 and another for u8 x s8, which is every x86 CPU with AVX2.
# The weights become unsigned, and for u8 x u8 there is no kernel with VNNI: 350 instead of 750 Gop/s of one thread. Left out, products are wrong
# without VNNI (not only a little: 2.3 for 289.6 in the worst case). So who ships one model for all CPUs has to ask the CPU and set it only
# where it is needed.
#
# For those who run models with int8 weights on x86. Exits non-zero once weights stay signed on a CPU with VNNI; without VNNI it can't be seen.
set -eu
grep -q avx512_vnni /proc/cpuinfo || { echo "this CPU has no AVX-512 VNNI: nothing to see here"; exit 0; }
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
"${PYTHON:-python3}" -m venv "$place/venv"
"$place/venv/bin/pip" install -q onnxruntime==1.32.0 onnx==1.19.1 numpy
cd "$place"
"$place/venv/bin/python" - <<'PYTHON'
import sys
import time

import numpy as np
import onnx
import onnx.parser
import onnxruntime

ROWS, K, N = 512, 512, 2048
model = onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]>
    g (uint8[{ROWS},{K}] x) => (float[{ROWS},{N}] y)
    <float scale = {{1.0}}, uint8 zero = {{128}}>
    {{ y = com.microsoft.MatMulIntegerToFloat (x, w, scale, scale, zero) }}""")
weights = np.random.default_rng(0).integers(-127, 128, (K, N), np.int8)
model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
x, found = np.random.default_rng(1).integers(0, 256, (ROWS, K), np.uint8), {}
for setting in ("0", "1"):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    options.optimized_model_filepath = "optimised.onnx"
    options.add_session_config_entry("session.x64quantprecision", setting)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    kept = next(w for w in onnx.load("optimised.onnx").graph.initializer if list(w.dims) == [K, N])
    times = []
    for _ in range(9):
        began = time.perf_counter()
        (y,) = session.run(None, {"x": x})
        times.append(time.perf_counter() - began)
    found[setting] = kept.data_type, y
    name = onnx.TensorProto.DataType.Name(kept.data_type)
    print(f"x64quantprecision={setting}: weights {name}, {2 * ROWS * K * N / sorted(times)[4] / 1e9:.0f} Gop/s")
print("results equal:", np.array_equal(found["0"][1], found["1"][1]))
sys.exit(found["1"][0] == onnx.TensorProto.INT8)
PYTHON
