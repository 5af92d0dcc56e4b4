"""Checkpoints of google/trax's Hourglass: the original's own logits, from every file it writes."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from torch_sessions import logits_of, torch_session

from foveal import CheckpointError, ConfigError
from foveal.models.readers.trax import config_from_json, is_trax, load_trax, read_arrays
from foveal.models.readers.trax_order import weights_in_order
from foveal.models.trax.model import TraxHourglass

GOLDENS = Path(__file__).parents[2] / "golden_families"
NAMED = ["trax_h3_attn", "trax_nested_2_6_naiveup"]  # weights with names, in safetensors
SAVED = "trax_saved"  # files that trax wrote
TOLERANCE = 5e-6


def config_of(directory: Path) -> dict[str, Any]:
    """What config.json says."""
    return json.loads((directory / "config.json").read_text())


def load(directory: Path, file: str = "", **kwargs: Any) -> TraxHourglass:
    """The model of a directory, or of one of its files, with some of its arguments changed."""
    config = config_of(directory)
    config["kwargs"].update(kwargs)
    return load_trax(directory / file, config)


def fed_and_expected(directory: Path) -> tuple[np.ndarray, np.ndarray]:
    """What the original is given, shifted as it does by itself, and the logits it gives."""
    io = np.load(directory / "io.npz")
    ids = io["ids"].astype(np.int64)
    return np.concatenate([np.zeros_like(ids[:, :1]), ids[:, :-1]], 1), io["logits"]


def arrays_of(name: str) -> list[np.ndarray]:
    """A golden's weights in trax's order."""
    tensors = load_file(GOLDENS / name / "model.safetensors")
    config = config_from_json(config_of(GOLDENS / name), GOLDENS / name)
    return [tensors[weight] for weight, _ in weights_in_order(config)]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A golden of our own to damage."""
    return Path(shutil.copytree(GOLDENS / NAMED[0], tmp_path / "c"))


@pytest.mark.parametrize("name", [*NAMED, SAVED])
def test_logits_are_those_of_the_original(name: str) -> None:
    """At every position of every sequence."""
    fed, expected = fed_and_expected(GOLDENS / name)
    np.testing.assert_allclose(logits_of(load(GOLDENS / name), fed), expected, atol=TOLERANCE)


@pytest.mark.parametrize("name", [*NAMED, SAVED])
def test_streamed_logits_are_those_of_the_original(name: str) -> None:
    """Token by token, which the original can't do."""
    fed, expected = fed_and_expected(GOLDENS / name)
    session = torch_session(load(GOLDENS / name), batch=len(fed))
    found = [session.advance(fed[:, place : place + 1]) for place in range(fed.shape[1])]
    np.testing.assert_allclose(np.concatenate(found, 1), expected, atol=TOLERANCE)


@pytest.mark.parametrize("file", ["model.weights.npy.gz", "model.pkl.gz", "before.pkl.gz", "saved.pkl.gz"])
def test_every_file_that_trax_writes(file: str) -> None:
    """By its training loop, now and formerly, and by `save_to_file`: histories, signatures and jax's arrays included."""
    fed, expected = fed_and_expected(GOLDENS / SAVED)
    np.testing.assert_allclose(logits_of(load(GOLDENS / SAVED, file), fed), expected, atol=TOLERANCE)


def nested(arrays: list[np.ndarray]) -> Any:
    """Weights as the tree of a trax model: empty ones of layers without any, and a marker where a layer is used again."""
    cached = {"__marker_for_cached_weights_": ()}
    return (arrays[0], (), [tuple(arrays[1:9]), cached, ((), (tuple(arrays[9:20]), cached))], tuple(arrays[20:]))


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("form", ["flat", "nested"])
@pytest.mark.parametrize("file", ["model.pkl", "model.pkl.gz"])
def test_pickles_of_the_same_weights(tmp_path: Path, name: str, form: str, file: str) -> None:
    """A list or a tree, gzipped or not: the order is that in which layers run."""
    arrays = arrays_of(name)
    saved = {"step": 3, "flat_weights": arrays} if form == "flat" else {"weights": nested(arrays)}
    data = pickle.dumps(saved)
    (tmp_path / file).write_bytes(gzip.compress(data, 1) if file.endswith(".gz") else data)
    (tmp_path / "config.json").write_bytes((GOLDENS / name / "config.json").read_bytes())
    fed, expected = fed_and_expected(GOLDENS / name)
    np.testing.assert_allclose(logits_of(load(tmp_path), fed), expected, atol=TOLERANCE)


def test_bfloat16_is_written_as_integers(checkpoint: Path) -> None:
    """Of 16 bits, as trax does."""
    arrays = arrays_of(NAMED[0])
    (checkpoint / "model.safetensors").unlink()
    rounded = [(array.view(np.uint32) >> 16).astype(np.uint16) for array in arrays]
    (checkpoint / "model.pkl").write_bytes(pickle.dumps({"flat_weights": rounded}))
    embedding = load(checkpoint).embed.weight
    assert embedding.dtype == torch.float32
    np.testing.assert_allclose(embedding.detach().numpy(), arrays[0], rtol=2**-7)


class Command:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


def test_a_pickle_that_would_run_something(checkpoint: Path) -> None:
    """Is refused, with what it wanted, and runs nothing."""
    (checkpoint / "model.safetensors").unlink()
    proof = checkpoint / "proof"
    evil = {"flat_weights": arrays_of(NAMED[0]), "history": Command(f"touch {proof}")}
    (checkpoint / "model.pkl.gz").write_bytes(gzip.compress(pickle.dumps(evil)))
    with pytest.raises(CheckpointError, match=rf"model.pkl.gz wants to import {os.name}.system, expected a pickle of arrays"):
        load(checkpoint)
    assert not proof.exists()


def test_arguments_of_another_model() -> None:
    """trax's arrays have no names: the first that can't be what it must be is reported, or how many there are."""
    saved = GOLDENS / SAVED
    with pytest.raises(
        CheckpointError, match=r"array 0 of 179 in .* has shape \(23, 8\), expected \(24, 8\) for embedding.weight"
    ):
        load(saved, vocab_size=24)
    with pytest.raises(
        CheckpointError, match=r"shape \(16, 8\), expected \(8,\) for down0.pool_norm.scale; the kwargs in config.json"
    ):
        load(saved, attention_downsampling_fn="AveragePooling")
    with pytest.raises(CheckpointError, match=r"shape \(8,\), expected \(8, 8\) for level1.pre.1.attn.pos.kernel"):
        load(saved, hierarchy="2@2 1@6 2@2")
    assert len(read_arrays(saved / "model.weights.npy.gz")) == 179


def test_fewer_arrays_than_the_model_has(checkpoint: Path) -> None:
    """And more: both numbers are given."""
    (checkpoint / "model.safetensors").unlink()
    arrays = arrays_of(NAMED[0])
    for given in (arrays[:-2], [*arrays, arrays[-1]]):
        (checkpoint / "model.pkl").write_bytes(pickle.dumps({"flat_weights": given}))
        with pytest.raises(CheckpointError, match=f"holds {len(given)} arrays, expected the 145 of a model of these kwargs"):
            load(checkpoint)


def test_tensors_that_do_not_fit_are_named(checkpoint: Path) -> None:
    """Where they have names."""
    tensors = load_file(checkpoint / "model.safetensors")
    del tensors["down0.attn.pos.bias"]
    tensors |= {"rotary": np.zeros(2), "level1.mid.norm.scale": np.zeros(3)}
    save_file(tensors, checkpoint / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        load(checkpoint)
    for part in ("missing down0.attn.pos.bias", "extra rotary", "level1.mid.norm.scale has shape (3,), expected (32,)"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("config", "parts"),
    [
        ({}, ("has no config.json with the kwargs of HourglassLM", '"vocab_size": 256', '"hierarchy": "24@3"')),
        ({"class": "HourglassLM"}, ("has no config.json with the kwargs", "what is left out has trax's defaults")),
        ({"class": "HourglassLM", "kwargs": {}}, ("missing required field `vocab_size`", "expected something like")),
        ({"kwargs": {"vocab_size": 9, "vanilla_layers": [1]}}, ("vanilla_layers",)),
        ({"kwargs": {"vocab_size": 9, "depth": 3}}, ("unknown field `depth`",)),
        ({"kwargs": {"vocab_size": 9, "downsampling_fn": "AveragePooling"}}, ("Invalid enum value 'AveragePooling'",)),
        ({"kwargs": {"vocab_size": 9}, "context": "long"}, ("Expected `int`, got `str`",)),
    ],
)
def test_what_config_json_must_say(config: dict[str, Any], parts: tuple[str, ...]) -> None:
    """The arguments, of which trax's files hold none; an example is shown."""
    with pytest.raises(CheckpointError) as caught:
        config_from_json(config, Path("there"))
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("kwargs", "reason"),
    [
        ({"hierarchy": "1@2 2@6 2@2"}, 'hierarchy "1@2 2@6 2@2" is no palindrome'),
        ({"hierarchy": "1@2 2@5 1@2"}, "got 5 inside 2"),
        ({"n_heads": 7}, "the width must be even and a multiple of the heads, got 512 and 7 heads"),
    ],
)
def test_hierarchies_that_the_original_would_not_build(kwargs: dict[str, Any], reason: str) -> None:
    """Nor could it be cut into stages."""
    with pytest.raises(ConfigError, match=reason):
        config_from_json({"kwargs": {"vocab_size": 9, **kwargs}}, Path("there"))


def test_defaults_are_the_originals() -> None:
    """Arguments left out mean what its constructor means; the context is that of its training."""
    config = config_from_json({"kwargs": {"vocab_size": 9}}, Path("there"))
    assert (config.hierarchy, config.dim, config.heads, config.ff_dim) == ("1@1 6@3 1@1", 512, 8, 2048)
    assert (config.shortening, config.upsampling, config.activation, config.context) == ("average", "linear", "gelu_tanh", 2048)


def test_what_is_recognised(tmp_path: Path) -> None:
    """By its class, by arguments that only it has, or by its files if there is nothing else to go by."""
    for name in (*NAMED, SAVED):
        assert is_trax(config_of(GOLDENS / name), GOLDENS / name)
    assert not is_trax({"class": "HourglassTransformerLM", "kwargs": {"vanilla_layers": 1}}, tmp_path)
    assert not is_trax({"hierarchy": "1@1 1@2 1@1"}, GOLDENS / SAVED)
    assert not is_trax({}, tmp_path)
    assert is_trax({}, GOLDENS / SAVED)
    assert is_trax({}, GOLDENS / SAVED / "model.weights.npy.gz")


def test_files_that_are_missing_or_broken(tmp_path: Path) -> None:
    """What should be there is named."""
    shutil.copy(GOLDENS / SAVED / "model.pkl.gz", tmp_path / "model_9.pkl.gz")
    config = config_of(GOLDENS / SAVED)
    with pytest.raises(
        CheckpointError, match=r"no weights in .*; expected one of model.safetensors, model.weights.npy.gz, model.pkl"
    ):
        load_trax(tmp_path, config)
    with pytest.raises(CheckpointError, match=r"no model_9.weights.npy.gz in .*, where trax puts the weights of the pickle"):
        load_trax(tmp_path / "model_9.pkl.gz", config)
    arrays = gzip.decompress((GOLDENS / SAVED / "model.weights.npy.gz").read_bytes())
    (tmp_path / "model_9.weights.npy.gz").write_bytes(gzip.compress(arrays[:-5]))
    with pytest.raises(CheckpointError, match="model_9.weights.npy.gz is not whole, or not a file of arrays"):
        load_trax(tmp_path / "model_9.pkl.gz", config)
    for saved, found in (({"params": 1}, r"the keys \['params'\]"), ([1], "a list")):
        (tmp_path / "model.pkl").write_bytes(pickle.dumps(saved))
        with pytest.raises(CheckpointError, match=f'holds {found}, expected a dict with "flat_weights" or "weights"'):
            load_trax(tmp_path, config)
    (tmp_path / "model.pkl").write_bytes(pickle.dumps({"weights": ["x"]}))
    with pytest.raises(CheckpointError, match='"weights" of .*model.pkl: a str is among the arrays'):
        load_trax(tmp_path, config)
