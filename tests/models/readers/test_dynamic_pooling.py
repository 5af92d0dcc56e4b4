"""Checkpoints of PiotrNawrot/dynamic-pooling: the original's own logits, from what its trainer writes and from its weights."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch_sessions import logits_of, torch_session

from foveal import CheckpointError, ConfigError
from foveal.models.dynamic_pooling.model import DynamicPooling
from foveal.models.layers.relative_attention import WholeSequence
from foveal.models.readers.dynamic_pooling import is_dynamic_pooling, load_dynamic_pooling
from foveal.models.readers.loading import load_model
from foveal.models.weights import Reading

GOLDENS = Path(__file__).parents[2] / "golden_families"
TINY = "dynamic_pooling_tiny"  # weights, and the arguments in config.json
SAVED = [f"dynamic_pooling_{kind}" for kind in ("whitespaces", "fixed", "unigram", "none")]  # by the original's trainer
FILE = "checkpoint_last.pt"
TOLERANCE = 1e-5


class Vocab:
    """Of the original's name for it, the module aside."""

    def __init__(self) -> None:
        self.sym2idx = {"a": 0, " ": 1}


def load(directory: Path, notes: list[str] | None = None) -> DynamicPooling:
    """The model of a directory."""
    file = directory / "config.json"
    config = json.loads(file.read_text()) if file.is_file() else {}
    return load_dynamic_pooling(directory, config, Reading(notes=[] if notes is None else notes))


def stored(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Ids and the original's logits."""
    io = np.load(GOLDENS / name / "io.npz")
    return io["ids"].astype(np.int64), io["logits"]


def copy_of(name: str, directory: Path) -> Path:
    """A golden to damage."""
    return Path(shutil.copytree(GOLDENS / name, directory / name))


def change_config(checkpoint: Path, **changes: Any) -> None:
    """Edit config.json."""
    path = checkpoint / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_kwargs(checkpoint: Path, **changes: Any) -> None:
    """Edit the constructor's arguments in config.json."""
    change_config(checkpoint, kwargs=json.loads((checkpoint / "config.json").read_text())["kwargs"] | changes)


def change_saved(checkpoint: Path, **changes: Any) -> None:
    """Write another trainer's file; an entry that is None is left out."""
    saved = torch.load(GOLDENS / SAVED[0] / FILE, weights_only=False, pickle_module=_WithVocab)
    saved = {**saved, **changes}
    torch.save({name: value for name, value in saved.items() if value is not None}, checkpoint / FILE)


class _Unpickler(torch.serialization.pickle.Unpickler):
    """Knows the original's vocabulary without its code."""

    def find_class(self, module: str, name: str) -> Any:
        return Vocab if name == "Vocab" else super().find_class(module, name)


class _WithVocab:
    """What torch.load takes for the module pickle."""

    Unpickler = _Unpickler
    load = staticmethod(torch.serialization.pickle.load)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Weights and config.json."""
    return copy_of(TINY, tmp_path)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A trainer's file, of whitespaces."""
    return copy_of(SAVED[0], tmp_path)


@pytest.mark.parametrize("name", [TINY, *SAVED])
def test_logits_are_those_of_the_original(name: str) -> None:
    """At every position of every sequence."""
    ids, logits = stored(name)
    np.testing.assert_allclose(logits_of(load(GOLDENS / name), ids), logits, atol=TOLERANCE)


def test_logits_in_double_precision() -> None:
    """All that is left is the 1e-9 that the original adds to the length of a group."""
    ids, _ = stored(TINY)
    expected = np.load(GOLDENS / TINY / "io.npz")["logits_f64"]
    np.testing.assert_allclose(logits_of(load(GOLDENS / TINY).double(), ids), expected, atol=1e-8)


def test_boundaries_are_those_of_the_original() -> None:
    """And how likely each token is one."""
    io, model = np.load(GOLDENS / TINY / "io.npz"), load(GOLDENS / TINY)
    ids = torch.from_numpy(io["ids"])
    assert model.predictor is not None
    with torch.no_grad():
        rows = model.pre(model.embed(ids), WholeSequence(ids.device))
        np.testing.assert_allclose(model.predictor(rows)[:, :, 0].numpy(), io["boundary_probabilities"], atol=1e-6)
        assert (model.boundaries(ids, rows).numpy() == io["boundaries"]).all()


@pytest.mark.parametrize("name", [TINY, *SAVED])
@pytest.mark.parametrize("chunk", [1, 7])
def test_streamed_logits_are_those_of_the_original(name: str, chunk: int) -> None:
    """Token by token, which the original can't do."""
    ids, logits = stored(name)
    model = load(GOLDENS / name)
    for row, expected in zip(ids, logits, strict=True):
        session = torch_session(model)
        found = [session.advance(row[None, place : place + chunk]) for place in range(0, len(row), chunk)]
        np.testing.assert_allclose(np.concatenate(found, 1)[0], expected, atol=TOLERANCE)


def test_it_is_recognised(tiny: Path, saved: Path) -> None:
    """By the original's class, or, where there is no config.json, by the names of its weights."""
    assert is_dynamic_pooling({"class": "MemTransformerLM"}, tiny)
    assert not is_dynamic_pooling({"class": "HourglassLM"}, saved)
    assert is_dynamic_pooling({}, saved)
    assert not is_dynamic_pooling({}, GOLDENS / "notagen_tiny")
    assert [load_model(path).source_format for path in (tiny, saved, saved / FILE)] == ["dynamic-pooling"] * 3


def test_what_the_trainer_says_beside_the_weights() -> None:
    """The stride and the lengths of its texts are among its options, the space in its vocabulary."""
    whitespaces, fixed, unigram, none = (load(GOLDENS / name).config for name in SAVED)
    assert (whitespaces.ids, whitespaces.stride, whitespaces.layers) == ((0,), None, (1, 2, 1))
    assert (fixed.ids, fixed.stride) == ((), 4)
    assert (unigram.is_predicted, none.is_vanilla) == (True, True)
    assert {config.context for config in (whitespaces, fixed, unigram, none)} == {96}


def test_arguments_without_model_config(saved: Path) -> None:
    """All of them are among the options."""
    change_saved(saved, model_config=None, vocab={"sym2idx": {" ": 0}})
    ids, logits = stored(SAVED[0])
    np.testing.assert_allclose(logits_of(load(saved), ids), logits, atol=TOLERANCE)


def test_names_of_distributed_training(saved: Path) -> None:
    """They are of the module that is wrapped."""
    state = torch.load(saved / FILE, weights_only=False, pickle_module=_WithVocab)["model_state"]
    change_saved(saved, model_state={f"module.{name}": value for name, value in state.items()}, vocab={"sym2idx": {" ": 0}})
    ids, logits = stored(SAVED[0])
    np.testing.assert_allclose(logits_of(load(saved), ids), logits, atol=TOLERANCE)


@pytest.mark.parametrize("place", ["config.json", "kwargs"])
@pytest.mark.parametrize(
    ("name", "key", "value"), [("dynamic_pooling_whitespaces", "whitespace_id", 0), ("dynamic_pooling_fixed", "fixed_sf", 4)]
)
def test_weights_and_what_their_arguments_do_not_say(tmp_path: Path, place: str, name: str, key: str, value: int) -> None:
    """It stands in config.json, at the top or among them."""
    trained = torch.load(GOLDENS / name / FILE, weights_only=False, pickle_module=_WithVocab)
    save_file(trained["model_state"], tmp_path / "model.safetensors")
    config = {"class": "MemTransformerLM", "context": 64, "kwargs": trained["model_config"]}
    (config if place == "config.json" else config["kwargs"])[key] = value
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = load(tmp_path)
    ids, logits = stored(name)
    np.testing.assert_allclose(logits_of(model, ids), logits, atol=TOLERANCE)
    assert model.config.context == 64


def test_gumbel_is_noted(tiny: Path) -> None:
    """The original's own logits can't be had twice; how often it fires is what it was trained to."""
    notes: list[str] = []
    change_kwargs(tiny, boundaries_type="gumbel", prior=0.25)
    model = load(tiny, notes)
    assert any("draws noise for gumbel boundaries" in note and "above 0.5" in note for note in notes)
    assert model.config.hierarchy == "2@1 2@~4 2@1"
    ids, logits = stored(TINY)
    np.testing.assert_allclose(logits_of(model, ids), logits, atol=TOLERANCE)


def test_other_frequencies_of_positions(tiny: Path) -> None:
    """They are the checkpoint's, as in the original, which loads them with the weights."""
    tensors = load_file(tiny / "model.safetensors")
    tensors["pos_emb.inv_freq"] = tensors["pos_emb.inv_freq"] * 1.5
    save_file(tensors, tiny / "model.safetensors")
    ids, logits = stored(TINY)
    model = load(tiny)
    found = logits_of(model, ids)
    assert np.abs(found - logits).max() > 0.01
    np.testing.assert_allclose(torch_session(model).advance(ids[:1]), found[:1], atol=TOLERANCE)


@pytest.mark.parametrize(
    ("changes", "error", "reason"),
    [
        ({"pre_lnorm": True}, CheckpointError, "says pre_lnorm true, expected false: the original refuses it, too"),
        ({"activation_function": "swish"}, CheckpointError, r"Invalid enum value 'swish' - at `\$.activation_function`"),
        ({"boundaries_type": "spaces"}, CheckpointError, r"Invalid enum value 'spaces' - at `\$.boundaries_type`"),
        ({"mem_len": 64}, CheckpointError, "unknown field `mem_len`"),
        ({"same_length": True}, CheckpointError, "unknown field `same_length`"),
        ({"clamp_len": 400}, CheckpointError, "unknown field `clamp_len`"),
        ({"tie_weight": True}, CheckpointError, "unknown field `tie_weight`"),
        ({"n_token": "70"}, CheckpointError, r"Expected `int`, got `str` - at `\$.n_token`"),
        ({"model_config": "[2, 2, 2]"}, CheckpointError, r"says the model_config '\[2, 2, 2\]', expected layers before"),
        ({"model_config": "[2, (2, 2), 2]"}, CheckpointError, "expected layers before, inside and after"),
        ({"model_config": "__import__('os').abort()"}, CheckpointError, "expected layers before, inside and after"),
        ({"model_config": None}, CheckpointError, "says the model_config None"),
        ({"boundaries_type": "none"}, ConfigError, r'\[2, 2, 2\] layers has the boundaries "none"'),
        ({"model_config": "[2, (0,), 0]"}, ConfigError, r'\[2, 0, 0\] layers has the boundaries "entropy"'),
        ({"boundaries_type": "fixed"}, CheckpointError, "tokens there are between fixed boundaries: add fixed_sf"),
        ({"boundaries_type": "fixed", "fixed_sf": 0}, ConfigError, "the stride of fixed boundaries must be at least 1, got 0"),
        (
            {"boundaries_type": "whitespaces"},
            CheckpointError,
            "which token is the space, .*: add whitespace_id",
        ),
        ({"boundaries_type": "whitespaces", "whitespace_id": 70}, ConfigError, r"must be in \[0, 70\), got \[70\]"),
        ({"d_model": 35}, ConfigError, "dim must be even, got 35"),
    ],
)
def test_arguments_that_can_not_be(tiny: Path, changes: dict[str, Any], error: type[Exception], reason: str) -> None:
    """Refused before any weight is read."""
    (tiny / "model.safetensors").unlink()
    change_kwargs(tiny, **changes)
    with pytest.raises(error, match=reason):
        load(tiny)


def test_config_json_that_says_two_things(tiny: Path) -> None:
    """Or one that nobody reads."""
    change_kwargs(tiny, fixed_sf=3)
    change_config(tiny, fixed_sf=4)
    with pytest.raises(CheckpointError, match="says fixed_sf 4 and in kwargs 3; leave one"):
        load(tiny)
    change_config(tiny, fixed_sf=3, threshold=0.4)
    with pytest.raises(CheckpointError, match='unknown field "threshold"'):
        load(tiny)


def test_options_of_another_trainer(saved: Path) -> None:
    """Transformer-XL's memory would change logits."""
    for name in ("mem_len", "same_length", "clamp_len"):
        change_saved(saved, args=argparse.Namespace(fixed_sf=2, **{name: 7}), vocab={"sym2idx": {" ": 0}})
        with pytest.raises(CheckpointError, match=f'args of .* has the unknown field "{name}"'):
            load(saved)


def test_a_file_without_arguments(saved: Path) -> None:
    """Its names tell what it is, but not the number of heads."""
    change_saved(saved, model_config=None, args=None, vocab=None)
    with pytest.raises(CheckpointError, match='neither model_config nor args, .* write a config.json beside it, .*"n_token"'):
        load(saved)


def test_a_vocabulary_without_a_space(saved: Path) -> None:
    """There would be no boundaries."""
    change_saved(saved, vocab={"sym2idx": {"a": 0}})
    with pytest.raises(CheckpointError, match="model_config of .* does not say which token is the space"):
        load(saved)


def test_a_pickle_that_holds_more(saved: Path) -> None:
    """Only the original's vocabulary is known by name, and stands for data alone."""
    change_saved(saved, vocab=Vocab())
    with pytest.raises(CheckpointError, match=r"holds more than tensors .*Vocab.*, which was not unpickled"):
        load_dynamic_pooling(saved, {})


def test_tensors_that_do_not_fit_are_named_as_in_the_file(tiny: Path) -> None:
    """By the original's names, not ours."""
    tensors = load_file(tiny / "model.safetensors")
    del tensors["layers.1.0.dec_attn.r_net.bias"], tensors["pos_emb.inv_freq"]
    tensors["layers.2.1.dec_attn.qkv_net.weight"] = torch.zeros(3, 3)
    tensors["layers.2.2.pos_ff.layer_norm.bias"] = torch.zeros(36)
    save_file(tensors, tiny / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        load(tiny)
    for part in (
        "missing layers.1.0.dec_attn.r_net.bias",
        "missing pos_emb.inv_freq",
        "extra layers.2.2.pos_ff.layer_norm.bias",
        "layers.2.1.dec_attn.qkv_net.weight has shape (3, 3), expected (120, 36)",
    ):
        assert part in str(caught.value)
