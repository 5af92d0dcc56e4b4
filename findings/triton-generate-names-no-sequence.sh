#!/bin/sh
# Triton's HTTP endpoints for language models, generate and generate_stream, can't call a model with sequence batching.
#
# 2026-11-30; Python 3.11, nvidia-pytriton 0.7.0 (tritonserver 2.51.0, no GPU), numpy 1.26.4, Linux x86-64. The server's source of
# August 2026 reads the same.
#
# What one would guess: `"parameters": {"sequence_id": 7, "sequence_start": true}` means there what it means to infer.
#
# What happens: generate hands every entry of "parameters" on as the model's own, sequence_id as well, so the request has no
# correlation id, and the scheduler refuses it: "must specify a non-zero or non-empty correlation ID". infer takes the same names
# as those of the sequence, and works. So a model that keeps state by sequence streams over gRPC only; without sequence batching the
# backend could read sequence_id among the request's parameters itself.
#
# For those who serve stateful models behind HTTP. Exits non-zero once generate takes a sequence.
set -eu
place=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill -9 "$server" 2>/dev/null || true; rm -rf "$place"' EXIT
"${PYTHON:-python3.11}" -m venv "$place/venv"
"$place/venv/bin/pip" install -q nvidia-pytriton==0.7.0 numpy==1.26.4
site=$("$place/venv/bin/python" -c "import site; print(site.getsitepackages()[0])")
cp -r "$site/pytriton/tritonserver/backends" "$place/backends"
cp "$site/pytriton/tritonserver/python_backend_stubs/3.11/triton_python_backend_stub" "$place/backends/python/"
mkdir -p "$place/models/echo/1"
cat > "$place/models/echo/config.pbtxt" <<'CONFIG'
backend: "python"
max_batch_size: 0
input { name: "text_input" data_type: TYPE_STRING dims: 1 }
output { name: "text_output" data_type: TYPE_STRING dims: 1 }
sequence_batching {
  control_input { name: "START" control { kind: CONTROL_SEQUENCE_START bool_false_true: false bool_false_true: true } }
  oldest { max_candidate_sequences: 4 }
}
instance_group { kind: KIND_CPU }
CONFIG
cat > "$place/models/echo/1/model.py" <<'MODEL'
import triton_python_backend_utils as utils


class TritonPythonModel:
    def execute(self, requests):
        texts = [utils.get_input_tensor_by_name(request, "text_input").as_numpy() for request in requests]
        return [utils.InferenceResponse([utils.Tensor("text_output", text)]) for text in texts]
MODEL
# Its stub takes the first libpython3.11 there is, which must be that of this Python.
LD_LIBRARY_PATH=$("$place/venv/bin/python" -c "import sysconfig; print(sysconfig.get_config_var('LIBDIR'))"):$site/nvidia_pytriton.libs \
    PATH="$place/venv/bin:$PATH" "$site/pytriton/tritonserver/bin/tritonserver" --model-repository="$place/models" \
    --backend-directory="$place/backends" --http-address=127.0.0.1 --http-port=18543 --allow-grpc=false --allow-metrics=false \
    > "$place/log" 2>&1 &
server=$!
"$place/venv/bin/python" - <<'PYTHON'
import json
import sys
import time
import urllib.error
import urllib.request

URL = "http://127.0.0.1:18543/v2/models/echo"
SEQUENCE = {"sequence_id": 7, "sequence_start": True, "sequence_end": True}


def ask(path: str, body: dict | None = None) -> tuple[int, str]:
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(URL + path, data), timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


for _ in range(300):
    if ask("/ready")[0] == 200:
        break
    time.sleep(0.1)
tensor = {"name": "text_input", "shape": [1], "datatype": "BYTES", "data": ["a"]}
infer = ask("/infer", {"inputs": [tensor], "parameters": SEQUENCE})
generate = ask("/generate", {"text_input": "a", "parameters": SEQUENCE})
beside = ask("/generate", {"text_input": "a", **SEQUENCE})
for name, (status, text) in {"infer": infer, "generate": generate, "generate, beside the text": beside}.items():
    print(f"{name}: {status} {text.strip()}")
refused = [status == 400 and "correlation ID" in text for status, text in (generate, beside)]
sys.exit(0 if infer[0] == 200 and all(refused) else 1)
PYTHON
