"""Every stage graph must parse and build with the real TensorRT-RTX compiler, which needs no GPU for that.

Nothing here runs an engine: that takes an RTX GPU (tests/gpu).
"""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from specimens import ZOO, Zoo

from foveal.contract import contract_of

trt = pytest.importorskip("tensorrt_rtx")

CAPACITY = 64
BATCH, ROWS = (1, 2, 4), (1, 8, 32)  # minimum, optimum and maximum of the profile


class Recorder(trt.ILogger):
    """Keeps the compiler's warnings and errors."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.messages: list[str] = []

    def log(self, severity: trt.ILogger.Severity, text: str) -> None:
        if severity <= trt.ILogger.Severity.WARNING:
            self.messages.append(text)


RECORDER = Recorder()  # TensorRT keeps the first logger of a process


def frozen(graph: Path) -> bytes:
    """The graph with its capacity fixed: TensorRT updates caches in place only at a static length."""
    model = onnx.load(graph)
    for value in (*model.graph.input, *model.graph.output):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param == "S":
                dimension.dim_value = CAPACITY
    return model.SerializeToString()


def build(graph: Path) -> tuple[bytes, list[str], trt.INetworkDefinition]:
    """Parse and build one stage graph; returns the engine, the compiler's complaints and the network."""
    logger = RECORDER
    logger.messages.clear()
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(frozen(graph)), [parser.get_error(i).desc() for i in range(parser.num_errors)]
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type == trt.LayerType.ATTENTION_INPUT:
            layer.__class__ = trt.IAttentionInputLayer
            layer.attention.decomposable = True  # there is no fused kernel for fp32 and several rows
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        profile.set_shape(tensor.name, *(shape_at(graph, tensor.name, step) for step in range(3)))
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    assert engine is not None, logger.messages
    return bytes(engine), list(logger.messages), network


def shape_at(graph: Path, name: str, step: int) -> list[int]:
    """An input's shape at the minimum, optimum or maximum of the profile."""
    letters = {"B": BATCH[step], "L": ROWS[step], "N": ROWS[step], "S": CAPACITY}
    (value,) = (value for value in onnx.load(graph, load_external_data=False).graph.input if value.name == name)
    shape = []
    for dimension in value.type.tensor_type.shape.dim:
        factor, _, letter = dimension.dim_param.rpartition("*")
        shape.append(dimension.dim_value or int(factor or 1) * letters[letter])
    return shape


def harmless(message: str) -> bool:
    """Warnings that say nothing about the graph (each was looked into)."""
    is_int64_input = "Make sure input" in message and "has Int64 binding" in message
    is_second_use_of_a_function = "already exists, the output tensors of this new instance will not be queryable" in message
    return is_int64_input or is_second_use_of_a_function


@pytest.mark.parametrize("name", ZOO)
def test_every_stage_builds_and_ignores_no_input(name: str, zoo: Zoo) -> None:
    """All kinds of stages, batch and rows dynamic, capacity static."""
    manifest, bundle = zoo[name].bundle.manifest, zoo[name].bundle
    for entry in manifest.stages:
        engine, messages, network = build(bundle.file(entry.graph))
        assert len(engine) > 10_000
        assert [message for message in messages if not harmless(message)] == []
        expected = {tensor.name for tensor in contract_of(entry.spec, manifest.model.dim, manifest.model.vocab_size).inputs}
        assert {network.get_input(i).name for i in range(network.num_inputs)} == expected


def test_caches_are_updated_in_place(zoo: Zoo) -> None:
    """TensorScatter becomes TensorRT's cache update, whose input and output share one address."""
    bundle = zoo["vanilla"].bundle
    (entry,) = bundle.manifest.stages
    _, _, network = build(bundle.file(entry.graph))
    kinds = [network.get_layer(index).type for index in range(network.num_layers)]
    assert kinds.count(trt.LayerType.KV_CACHE_UPDATE) == 2 * entry.spec.layers


def test_the_function_bodies_keep_their_names(zoo: Zoo) -> None:
    """Shorten and Lengthen can be told apart in the parsed network."""
    bundle = zoo["linear"].bundle
    coarse = bundle.manifest.stages[1]
    _, _, network = build(bundle.file(coarse.graph))
    names = [network.get_layer(index).name for index in range(network.num_layers)]
    assert any("Shorten" in name for name in names)
    assert any("Lengthen" in name for name in names)
