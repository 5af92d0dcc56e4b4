"""OpenVINO: a stateful model as its GenAI tools convert one, with attention over caches that stay in the plugin."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from line_protocol import Decoder, Logits, run
from original_weights import Affine, Array, Layer, Vanilla, read_vanilla

GROUP = 128
"""Inputs that share a 4-bit scale: nncf's default, and that of the 4-bit models that Intel publishes."""


FULL = {"INFERENCE_PRECISION_HINT": "f32"}
"""Products of float32, where the plugin would round rows to bfloat16 on a CPU that has instructions for it."""
SETTINGS: dict[str, dict[str, str]] = {"fp32": FULL | {"KV_CACHE_PRECISION": "f32"}, "int8, f32": FULL, "int4, f32": FULL}
"""Of the plugin; otherwise its own, with caches in 8 bits."""


class OpenVino:
    """The CPU plugin."""

    def versions(self) -> dict[str, str]:
        """OpenVINO's, and that of its compressor of weights."""
        return {name: version(name) for name in ("openvino", "nncf")}

    def prepare(self, original: Path, out: Path, precision: str) -> None:
        """`model.xml` in fp32, or with nncf's compressed weights."""
        import openvino

        model = _Graph(read_vanilla(original)).model()
        if precision != "fp32":
            import nncf

            mode = nncf.CompressWeightsMode
            settings = {"int8": {"mode": mode.INT8_ASYM}, "int4": {"mode": mode.INT4_SYM, "group_size": GROUP, "ratio": 1.0}}
            model = nncf.compress_weights(model, **settings[precision.partition(",")[0]])
        openvino.save_model(model, out / "model.xml", compress_to_fp16=False)
        (out / "plugin.json").write_text(json.dumps(SETTINGS.get(precision, {})))

    def load(self, path: Path, threads: int, sequences: int, capacity: int) -> Decoder:
        """Compiled for latency."""
        import openvino

        settings: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        settings |= json.loads((path / "plugin.json").read_text())
        return Request(openvino.Core().compile_model(path / "model.xml", "CPU", settings), sequences)


class Request:
    """An inference request: its state is the cache, which grows as it must."""

    def __init__(self, compiled: Any, sequences: int) -> None:
        self.request = compiled.create_infer_request()
        self.beams = np.arange(sequences, dtype=np.int32)
        self.reset()

    def reset(self) -> None:
        """An empty cache."""
        self.request.reset_state()
        self.position = 0

    def append(self, tokens: npt.NDArray[np.int64]) -> Logits:
        """One call."""
        end = self.position + tokens.shape[1]
        places = np.broadcast_to(np.arange(self.position, end), tokens.shape)
        self.position = end
        self.request.infer([tokens, places, self.beams], share_inputs=True)
        logits: Logits = self.request.get_output_tensor().data[:, -1].copy()  # the next call writes into the same memory
        return logits


class _Graph:
    """Ids and places to logits of the last row; each cache is a variable that a Concat lengthens."""

    def __init__(self, vanilla: Vanilla) -> None:
        from openvino import opset15

        self.vanilla, self.ops = vanilla, opset15
        self.sinks: list[Any] = []
        self.head_dim = vanilla.dim // vanilla.heads

    def model(self) -> Any:
        """The whole of it."""
        import openvino

        ops, vanilla = self.ops, self.vanilla
        ids, places = (ops.parameter([-1, -1], np.int64, name) for name in ("input_ids", "position_ids"))
        beams = ops.parameter([-1], np.int32, "beam_idx")
        self.ids, self.beams = ids, beams
        x = ops.add(self.rows(vanilla.tokens, ids), self.rows(vanilla.positions, places))
        for index, layer in enumerate(vanilla.layers):
            x = self.layer(index, layer, x)
        last = ops.gather(x, self.ints([-1]), self.ints(1))
        logits = ops.matmul(self.norm(last, vanilla.norm), ops.constant(vanilla.tokens), False, True)
        return openvino.Model([ops.result(logits, "logits")], self.sinks, [ids, places, beams], "vanilla")

    def layer(self, index: int, layer: Layer, x: Any) -> Any:
        """Attention, and then the feed-forward block."""
        ops = self.ops
        parts = np.split(layer.qkv, 3)
        query, key, value = (
            self.heads(ops.matmul(self.norm(x, layer.norm), ops.constant(part), False, True)) for part in parts
        )
        key, value = (self.cached(f"{index}.{name}", rows) for name, rows in (("key", key), ("value", value)))
        attended = ops.scaled_dot_product_attention(query, key, value, self.mask(key), causal=False)
        merged = ops.reshape(ops.transpose(attended, self.ints([0, 2, 1, 3])), self.ints([0, 0, self.vanilla.dim]), True)
        x = ops.add(x, self.product(merged, layer.out))
        active = ops.gelu(self.product(self.norm(x, layer.second_norm), layer.up), "erf")
        return ops.add(x, self.product(active, layer.down))

    def cached(self, name: str, rows: Any) -> Any:
        """All rows so far `[B, H, T, Dh]`: the plugin knows this pattern, a Gather by beams and a Concat with the new rows."""
        from openvino import PartialShape, Type
        from openvino.op.util import VariableInfo

        ops, info = self.ops, VariableInfo()
        info.variable_id, info.data_type = name, Type.f32
        info.data_shape = PartialShape([-1, self.vanilla.heads, -1, self.head_dim])
        count = ops.gather(ops.shape_of(self.ids, "i64"), self.ints([0]), self.ints(0))
        shape = ops.concat([count, self.ints([self.vanilla.heads]), self.ints([0]), self.ints([self.head_dim])], 0)
        variable = self.variable(info)
        empty = ops.broadcast(ops.constant(np.float32(0)), shape)
        past = ops.gather(ops.read_value(empty, variable), self.beams, self.ints(0))
        whole = ops.concat([past, rows], 2)
        self.sinks.append(ops.assign(whole, variable))
        return whole

    def variable(self, info: Any) -> Any:
        """A state of the model."""
        from openvino.op.util import Variable

        return Variable(info)

    def mask(self, key: Any) -> Any:
        """`[L, T]` of what each new row does not see: zero, or minus infinity."""
        ops = self.ops
        total = ops.gather(ops.shape_of(key, "i64"), self.ints(2), self.ints(0))
        count = ops.gather(ops.shape_of(self.ids, "i64"), self.ints(1), self.ints(0))
        every = ops.range(self.ints(0), total, self.ints(1), "i64")
        own = ops.unsqueeze(ops.range(ops.subtract(total, count), total, self.ints(1), "i64"), self.ints(1))
        seen = ops.less_equal(ops.unsqueeze(every, self.ints(0)), own)
        return ops.select(seen, ops.constant(np.float32(0)), ops.constant(np.float32(-np.inf)))

    def heads(self, rows: Any) -> Any:
        """`[B, L, D]` -> `[B, H, L, Dh]`."""
        split = self.ops.reshape(rows, self.ints([0, 0, self.vanilla.heads, self.head_dim]), True)
        return self.ops.transpose(split, self.ints([0, 2, 1, 3]))

    def norm(self, x: Any, norm: Affine) -> Any:
        """A layer norm, in the form that the plugin fuses."""
        ops = self.ops
        normed = ops.mvn(x, self.ints([-1]), True, self.vanilla.epsilon, "INSIDE_SQRT")
        return ops.add(ops.multiply(normed, ops.constant(norm.weight)), ops.constant(norm.bias))

    def product(self, x: Any, affine: Affine) -> Any:
        """With a matrix `[out, in]`."""
        return self.ops.add(self.ops.matmul(x, self.ops.constant(affine.weight), False, True), self.ops.constant(affine.bias))

    def rows(self, table: Array, places: Any) -> Any:
        """Of a table."""
        return self.ops.gather(self.ops.constant(table), places, self.ints(0))

    def ints(self, value: int | list[int]) -> Any:
        """A constant of places or sizes."""
        return self.ops.constant(np.array(value, np.int64))


if __name__ == "__main__":
    run(OpenVino())
