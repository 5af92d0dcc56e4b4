"""onnxruntime-genai: a graph as its model builder writes one, with GroupQueryAttention over a cache written in place."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from line_protocol import Logits, run
from onnx import TensorProto, helper, numpy_helper
from original_weights import Affine, Array, Layer, Vanilla, read_vanilla

BITS = {"w8": 8, "w4": 4}
BLOCK = 32
"""Its builder's block size for int4, and the one that Q4_0 and Q8_0 have."""


class Genai:
    """CPU, greedy."""

    def versions(self) -> dict[str, str]:
        """The library's and that of the ONNX Runtime below it."""
        return {name: version(name) for name in ("onnxruntime-genai", "onnxruntime")}

    def prepare(self, original: Path, out: Path, precision: str) -> None:
        """`model.onnx` in fp32, or its products in blocks of w8 or w4, and `genai_config.json`."""
        vanilla = read_vanilla(original)
        graph = _Graph(vanilla).model()
        if precision != "fp32":
            from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

            quantizer = MatMulNBitsQuantizer(graph, BITS[precision], BLOCK, is_symmetric=True, accuracy_level=4)
            quantizer.process()
            graph = quantizer.model.model
        onnx.save(graph, out / "model.onnx")
        (out / "genai_config.json").write_text(json.dumps(_config(vanilla), indent=2))

    def load(self, path: Path, threads: int, sequences: int, capacity: int) -> Generator:
        """A model on so many threads."""
        import onnxruntime_genai as genai

        config = genai.Config(str(path))
        config.overlay(json.dumps({"model": {"decoder": {"session_options": {"intra_op_num_threads": threads}}}}))
        return Generator(genai, genai.Model(config), sequences, capacity)


class Generator:
    """Sequences of a model; a new generator for each prompt, as the library has it."""

    def __init__(self, library: Any, model: Any, sequences: int, capacity: int) -> None:
        self.library, self.model = library, model
        self.parameters = library.GeneratorParams(model)
        self.parameters.set_search_options(max_length=capacity, batch_size=sequences, do_sample=False)
        self.reset()

    def reset(self) -> None:
        """A generator that has seen nothing."""
        self.generator = self.library.Generator(self.model, self.parameters)

    def append(self, tokens: npt.NDArray[np.int64]) -> Logits:
        """By `append_tokens`, which also is what follows a token that was chosen outside the library."""
        self.generator.append_tokens(tokens.astype(np.int32))
        logits: Logits = self.generator.get_logits()[:, -1]
        return logits


class _Graph:
    """Ids, a mask and caches to logits of the last row and caches; fused operators, as the builder's CPU graphs have them."""

    def __init__(self, vanilla: Vanilla) -> None:
        self.vanilla = vanilla
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.head_dim = vanilla.dim // vanilla.heads

    def model(self) -> onnx.ModelProto:
        """The whole of it."""
        vanilla, layers = self.vanilla, self.vanilla.layers
        lengths, total = self._lengths()
        tokens = self.add("Gather", self.weight("tokens", vanilla.tokens), "input_ids")
        places = self.add("Gather", self.weight("positions", vanilla.positions), "position_ids")
        x = self.add("Add", tokens, places)
        normed = self.add("LayerNormalization", x, *self.affine("norm.0", layers[0].norm), epsilon=vanilla.epsilon)
        following = [layer.norm for layer in layers[1:]] + [vanilla.norm]
        for index, (layer, after) in enumerate(zip(layers, following, strict=True)):
            x, normed = self.layer(index, layer, after, x, normed, lengths, total)
        last = self.add("Gather", normed, self.weight("last", np.array([-1], np.int64)), axis=1)
        self.nodes.append(helper.make_node("MatMul", [last, self.weight("head", vanilla.tokens.T)], ["logits"], "head"))
        inputs = [("input_ids", "bs"), ("attention_mask", "bt"), ("position_ids", "bs")]
        graph = helper.make_graph(
            self.nodes,
            "vanilla",
            [helper.make_tensor_value_info(name, TensorProto.INT64, list(shape)) for name, shape in inputs]
            + self.caches("past"),
            [
                helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", 1, len(vanilla.tokens)]),
                *self.caches("present"),
            ],
            self.weights,
        )
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)

    def layer(self, index: int, layer: Layer, after: Affine, x: str, normed: str, lengths: str, total: str) -> tuple[str, str]:
        """What follows one layer: the sum, and its norm by the weights of the next."""
        qkv = self.product(f"{index}.qkv", layer.qkv, normed)
        present = [f"present.{index}.{part}" for part in ("key", "value")]
        attended = f"{index}.attended"
        self.nodes.append(
            helper.make_node(
                "GroupQueryAttention",
                [qkv, "", "", *(f"past.{index}.{part}" for part in ("key", "value")), lengths, total],
                [attended, *present],
                f"{index}.attention",
                domain="com.microsoft",
                num_heads=self.vanilla.heads,
                kv_num_heads=self.vanilla.heads,
                scale=self.head_dim**-0.5,
            )
        )
        change = self.product(f"{index}.out", layer.out.weight, attended)
        x, normed = self.sum_and_norm(f"{index}.second", x, change, layer.out.bias, layer.second_norm)
        up = self.product(f"{index}.up", layer.up.weight, normed)
        active = self.add("BiasGelu", up, self.weight(f"{index}.up.bias", layer.up.bias), domain="com.microsoft")
        change = self.product(f"{index}.down", layer.down.weight, active)
        return self.sum_and_norm(f"{index}.after", x, change, layer.down.bias, after)

    def sum_and_norm(self, name: str, x: str, change: str, bias: Array, norm: Affine) -> tuple[str, str]:
        """`x + change + bias`, and its norm, in one node."""
        normed, total = f"{name}.normed", f"{name}.sum"
        self.nodes.append(
            helper.make_node(
                "SkipLayerNormalization",
                [x, change, *self.affine(name, norm), self.weight(f"{name}.bias_of_change", bias)],
                [normed, "", "", total],
                f"{name}.norm",
                domain="com.microsoft",
                epsilon=self.vanilla.epsilon,
            )
        )
        return total, normed

    def product(self, name: str, weight: Array, x: str) -> str:
        """With a matrix `[out, in]`."""
        return self.add("MatMul", x, self.weight(name, weight.T))

    def _lengths(self) -> tuple[str, str]:
        """What GroupQueryAttention wants to know, from the mask: each sequence's last place, and the length of the longest."""
        one = self.weight("one", np.array([1], np.int64))
        last = self.add("Sub", self.add("ReduceSum", "attention_mask", one, keepdims=0), one)
        lengths = self.add("Cast", last, to=TensorProto.INT32)
        width = self.add("Gather", self.add("Shape", "attention_mask"), self.weight("axis", np.array(1, np.int64)), axis=0)
        return lengths, self.add("Cast", width, to=TensorProto.INT32)

    def caches(self, when: str) -> list[onnx.ValueInfoProto]:
        """Keys and values of all layers."""
        shape = ["b", self.vanilla.heads, f"{when}_length", self.head_dim]
        names = [f"{when}.{index}.{part}" for index in range(len(self.vanilla.layers)) for part in ("key", "value")]
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in names]

    def affine(self, name: str, affine: Affine) -> tuple[str, str]:
        """The weights of a norm."""
        return self.weight(f"{name}.weight", affine.weight), self.weight(f"{name}.bias", affine.bias)

    def weight(self, name: str, value: npt.NDArray[Any]) -> str:
        """An initializer."""
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """A node of one output; its name."""
        name = f"{operator}.{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], name, **attributes))
        return name


def _config(vanilla: Vanilla) -> dict[str, Any]:
    """`genai_config.json`: which tensors of the graph are what."""
    decoder = {
        "filename": "model.onnx",
        "head_size": vanilla.dim // vanilla.heads,
        "hidden_size": vanilla.dim,
        "num_attention_heads": vanilla.heads,
        "num_key_value_heads": vanilla.heads,
        "num_hidden_layers": len(vanilla.layers),
        "session_options": {"provider_options": []},
        "inputs": {
            **{name: name for name in ("input_ids", "attention_mask", "position_ids")},
            **{f"past_{part}_names": f"past.%d.{part}" for part in ("key", "value")},
        },
        "outputs": {"logits": "logits", **{f"present_{part}_names": f"present.%d.{part}" for part in ("key", "value")}},
    }
    first = 0  # must be in the vocabulary; no token ends a text that is appended to from outside
    model = {
        "type": "phi",  # of the types that have these inputs, one that asks for nothing more
        "context_length": len(vanilla.positions),
        "vocab_size": len(vanilla.tokens),
        **{f"{name}_token_id": first for name in ("bos", "eos", "pad")},
        "decoder": decoder,
    }
    return {"model": model, "search": {"past_present_share_buffer": True, "max_length": len(vanilla.positions)}}


if __name__ == "__main__":
    run(Genai())
