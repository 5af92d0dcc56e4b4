"""Checkpoints to bundles: the logits are the stored ones, the graphs are what the contract says."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from contracts import check_graphs_are_their_contracts
from precisions import bytes_model, classic_engines, classic_graphs, cpu_engines, logits, write_text
from specimens import GOLDEN, GOLDENS, ZOO, Goldens, Zoo, random_model
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from foveal import BundleError, CheckpointError, ConfigError, ExportError, FovealError, FovealWarning, convert
from foveal.bench.random_models import RandomModels
from foveal.bundle import CHAT_FILES
from foveal.export import build, conversion, convert_model, verify
from foveal.export.graphs.dialect import DIALECTS
from foveal.export.graphs.export_stage import export_stage
from foveal.models.checkpoint import save_checkpoint
from foveal.progress import silent


def chunks(length: int, seed: int) -> Sequence[int]:
    """Random chunk sizes that fill a sequence."""
    rng, sizes = np.random.default_rng(seed), [0]
    while sum(sizes) < length:
        sizes.append(min(int(rng.integers(1, 20)), length - sum(sizes)))
    return sizes[1:]


@pytest.mark.parametrize("name", GOLDENS)
def test_the_stored_logits_come_out_of_the_engines(name: str, goldens: Goldens) -> None:
    """In one call, token by token and in random chunks, within 1e-4 of the original package's; and out of classic graphs."""
    stored = np.load(GOLDEN / name / "io.npz")
    ids = stored["ids"].astype(np.int64)
    length, bundle = ids.shape[1], goldens[name]
    for engines in (cpu_engines(bundle), classic_engines(bundle)):
        for sizes in ([length], [1] * length, chunks(length, 1), chunks(length, 2)):
            np.testing.assert_allclose(logits(bundle, engines, ids, sizes), stored["logits"], atol=1e-4)


@pytest.mark.parametrize("name", ZOO)
def test_every_graph_is_its_contract(name: str, zoo: Zoo) -> None:
    """Names, types and shapes, with batch, rows and capacity symbolic; the checker has nothing to say."""
    check_graphs_are_their_contracts(zoo[name].bundle)


@pytest.mark.parametrize("name", ZOO)
def test_the_domain_ops_show_by_name_and_have_a_body(name: str, zoo: Zoo) -> None:
    """A coarse stage shows Shorten, the last of its scale Lengthen; every one is defined in its own file, in standard ops."""
    for entry in zoo[name].bundle.manifest.stages:
        model = onnx.load(zoo[name].bundle.file(entry.graph), load_external_data=False)
        used = [node.op_type for node in model.graph.node if node.domain == "foveal"]
        kinds = {given.kind for given in entry.spec.inputs}
        assert ("Shorten" in used) == ("window" in kinds)
        assert ("Lengthen" in used) == (entry.spec.output_rows > 1)
        assert used.count("CachedAttention") == entry.spec.layers
        assert {function.name for function in model.functions} == set(used)
        assert {node.domain for function in model.functions for node in function.node} <= {""}
        assert all(node.name for node in model.graph.node)


def test_nodes_are_named_after_their_place(zoo: Zoo) -> None:
    """So that a viewer's search groups them."""
    bundle = zoo["nested"].bundle
    names = {node.name for node in onnx.load(bundle.file("stages/8.onnx"), load_external_data=False).graph.node}
    assert "8/stack/layers/1/feed_forward/up/MatMul" in names
    assert "8/entry/Shorten" in names


def test_weights_lie_beside_the_graph(zoo: Zoo) -> None:
    """Outside the protobuf, whose limit is 2 GB, in a file that can be mapped into memory."""
    bundle = zoo["nested"].bundle
    for entry in bundle.manifest.stages:
        model = onnx.load(bundle.file(entry.graph), load_external_data=False)
        weights = [tensor for tensor in model.graph.initializer if len(tensor.dims) == 2]
        assert all(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in weights)
        assert bundle.file(f"{entry.graph}.data").stat().st_size >= sum(4 * np.prod(tensor.dims) for tensor in weights)


@pytest.mark.parametrize("name", ZOO)
def test_cpu_engines_cost_by_the_length_used(name: str, zoo: Zoo) -> None:
    """Every layer runs ONNX Runtime's own kernel, and the mask over the whole capacity is gone."""
    bundle = zoo[name].bundle
    for entry in bundle.manifest.stages:
        path = bundle.file(bundle.manifest.engines["cpu"][entry.spec.name])
        onnx.checker.check_model(str(path))
        model = onnx.load(path, load_external_data=False)
        assert {entry.domain: entry.version for entry in model.opset_import}[""] == 23  # what ONNX Runtime 1.23 loads
        kernels = [node.op_type for function in model.functions for node in function.node if node.domain == "com.microsoft"]
        assert kernels == ["GroupQueryAttention"] * (entry.spec.layers > 0)
        assert "LessOrEqual" not in {node.op_type for node in model.graph.node}
        portable = [value.name for value in onnx.load(bundle.file(entry.graph), load_external_data=False).graph.input]
        given = [value.name for value in model.graph.input]
        counters = set(given) - set(portable)  # which the host gives in place of the position
        assert counters - {"rows"} == ({"last_row", "total"} if entry.spec.layers else set())
        assert [name for name in given if name not in counters] == [name for name in portable if name != "position"]


def test_a_classic_bundle(tmp_path: Path) -> None:
    """Its graphs are the modern ones restated, in every precision built from them, and it is the model it was made from."""
    model, text = bytes_model("1@1"), write_text(tmp_path / "text.txt")
    modern, classic = (convert_model(model, tmp_path / name, tokenizer="bytes", dialect=name) for name in DIALECTS)
    assert [bundle.manifest.dialect for bundle in (modern, classic)] == ["modern", "classic"]
    small = [build(bundle, tmp_path / f"{bundle.path.name}_w4", "w4", calibration=[text]) for bundle in (modern, classic)]
    for ours, theirs in ((modern, classic), small):
        for entry in theirs.manifest.stages:
            graph, restated = theirs.file(entry.graph), classic_graphs(ours)[entry.spec.name]
            assert graph.read_bytes() == restated.read_bytes()
    save_checkpoint(model, tmp_path / "checkpoint", torch.float32)
    verify(classic, tmp_path / "checkpoint").require_equal()


def test_unknown_settings(tmp_path: Path) -> None:
    """The ones there are get listed, and nothing is written."""
    for settings, reason in (
        ({"target": "tpu"}, 'unknown target "tpu"; expected one of cpu'),
        ({"precision": "fp64"}, 'unknown precision "fp64"; expected one of fp32'),
        ({"dialect": "latin"}, 'unknown dialect "latin"; expected one of modern, classic'),
        ({"tokenizer": str(tmp_path / "none.json")}, r'no tokenizer at .*; expected a tokenizer\.json, "bytes", or'),
    ):
        with pytest.raises(ConfigError, match=reason):
            convert(GOLDEN / "s4_naive_attn", tmp_path / "b", **settings)
    assert list(tmp_path.iterdir()) == []
    assert set(DIALECTS) == {"modern", "classic"}


@pytest.mark.parametrize(
    ("text", "tokenizer", "reason"),
    [
        ("none.txt", "bytes", "no text at none.txt: expected a text file"),
        ("empty.txt", "bytes", "the text is empty: empty.txt"),
        ("odd.txt", "bytes", "the text at odd.txt is not UTF-8"),
        ("some.txt", None, "the model has no tokenizer, so it can't read text"),
        ("none.npy", None, "none.npy can't be read as ids"),
    ],
)
def test_texts_that_can_not_be_read_are_named_before_anything_is_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, tokenizer: str | None, reason: str
) -> None:
    """An export may take minutes; of random models for a benchmark, too."""
    monkeypatch.chdir(tmp_path)
    for name, data in (("empty.txt", b" \n"), ("odd.txt", b"a\xff"), ("some.txt", b"words")):
        Path(name).write_bytes(data)
    monkeypatch.setattr(conversion, "export_stage", lambda *_: pytest.fail("exported"))
    model = random_model("1@1", vocab_size=256)
    with pytest.raises(FovealError, match=reason):
        convert_model(model, tmp_path / "b", precision="int8", calibration=text, tokenizer=tokenizer)
    if tokenizer == "bytes":
        sizes = RandomModels(dim=16, heads=2, ff_dim=16, vocab_size=256, context=32)
        with pytest.raises(FovealError, match=reason):
            sizes.convert(["1@1"], tmp_path, silent, ["fp32", "int8"], [Path(text)])


def test_what_is_no_bundle_is_not_overwritten(tmp_path: Path) -> None:
    """A slip of the hand costs nobody a directory."""
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(BundleError, match="exists and is not a bundle; choose another path or remove it yourself"):
        convert(GOLDEN / "s4_naive_attn", tmp_path)
    assert (tmp_path / "thesis.tex").exists()


def test_a_failed_conversion_leaves_the_old_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no half of a new one."""
    path = tmp_path / "b"
    convert_model(random_model("1@1"), path)
    before = (path / "manifest.json").read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise ExportError("no")

    monkeypatch.setattr(conversion, "compile_stage", fail)
    with pytest.raises(ExportError):
        convert_model(random_model("1@1", seed=1), path)
    assert (path / "manifest.json").read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["b"]


def test_a_checkpoint_that_is_none(tmp_path: Path) -> None:
    """The reader's own message."""
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        convert(tmp_path / "none", tmp_path / "b")


def test_a_stage_that_can_not_be_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stage and the exporter's first line."""
    model = random_model("1@1")
    (stage,) = model.stages()

    def fail(*_: object) -> None:
        raise RuntimeError("no logits today")

    monkeypatch.setattr(type(model.head), "forward", fail)
    with pytest.raises(ExportError, match='stage "1" could not be exported: '):
        export_stage(stage, tmp_path / "1.onnx", DIALECTS["modern"])


def test_what_makes_prompts_of_chats_travels_with_the_tokenizer(tmp_path: Path) -> None:
    """Into the bundle and into those that are built of it, with hashes, as everything else."""
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    Tokenizer(WordLevel({"a": 0, "b": 1}, unk_token="b")).save(str(checkpoint / "tokenizer.json"))
    (checkpoint / "tokenizer_config.json").write_text('{"eos_token": "b"}')
    (checkpoint / "chat_template.jinja").write_text("{{ messages }}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FovealWarning)  # two words are not every text
        full = convert_model(bytes_model("1@1 1@2 1@1"), tmp_path / "full", tokenizer=checkpoint / "tokenizer.json")
    small = build(full, tmp_path / "small", "w8")
    for bundle in (full, small):
        for name in CHAT_FILES:
            assert bundle.file(name).read_bytes() == (checkpoint / name).read_bytes()
            assert name in bundle.manifest.files
