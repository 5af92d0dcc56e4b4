"""H-Net's checkpoints: the logits and boundaries that the original's Python stored."""

from __future__ import annotations

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
from foveal.models.hnet.config import layers_of
from foveal.models.hnet.router import begins
from foveal.models.readers.hnet import config_from_kwargs, is_hnet, load_hnet
from foveal.models.readers.loading import load_model

GOLDENS = Path(__file__).parents[2] / "golden_families"
NAMES = ["hnet_tiny", "hnet_2stage_tiny"]
TOLERANCE = 2e-5
PUBLISHED = {
    "arch_layout": ["m4", ["T1m4", ["T26"], "m4T1"], "m4"],
    "d_model": [1024, 1024, 1536],
    "d_intermediate": [0, 2816, 4096],
    "vocab_size": 256,
    "ssm_cfg": {"chunk_size": 256, "d_conv": 4, "d_state": 128, "expand": 2},
    "attn_cfg": {"num_heads": [16, 16, 16], "rotary_emb_dim": [32, 32, 48], "window_size": [1023, 1023, -1]},
    "tie_embeddings": False,
}
"""configs/hnet_2stage_L.json."""


def load(checkpoint: Path) -> Any:
    """The model of a checkpoint directory."""
    return load_hnet(checkpoint, json.loads((checkpoint / "config.json").read_text()))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A golden checkpoint of our own to damage."""
    return Path(shutil.copytree(GOLDENS / "hnet_2stage_tiny", tmp_path / "c"))


def change_kwargs(checkpoint: Path, **changes: Any) -> None:
    """Edit the original's configuration in config.json."""
    path = checkpoint / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"kwargs": config["kwargs"] | changes}))


def change_tensors(checkpoint: Path, **changes: torch.Tensor | None) -> None:
    """Replace, add or (None) remove tensors; a double underscore stands for a dot."""
    path = checkpoint / "model.safetensors"
    tensors = load_file(path)
    for key, value in changes.items():
        name = key.replace("__", ".")
        if value is None:
            del tensors[name]
        else:
            tensors[name] = value
    save_file(tensors, path)


@pytest.mark.parametrize("name", NAMES)
def test_the_stored_logits(name: str) -> None:
    """Of two sequences whose chunks begin at different bytes, at every position."""
    io = np.load(GOLDENS / name / "io.npz")
    np.testing.assert_allclose(logits_of(load(GOLDENS / name), io["ids"]), io["logits"], atol=TOLERANCE)


@pytest.mark.parametrize("name", NAMES)
def test_the_stored_logits_in_float64(name: str) -> None:
    """The original rounds chances and rotations to float32 even there."""
    io = np.load(GOLDENS / name / "io.npz")
    np.testing.assert_allclose(logits_of(load(GOLDENS / name).double(), io["ids"]), io["logits_f64"], atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_the_stored_boundaries(name: str) -> None:
    """Of every router, and the chances that they come from."""
    io, model = np.load(GOLDENS / name / "io.npz"), load(GOLDENS / name)
    with torch.no_grad():
        found = model.chances(torch.from_numpy(io["ids"]))
    rows = np.full(len(io["ids"]), io["ids"].shape[1])
    assert len(found) == len(model.config.scales) - 1
    for stage, chances in enumerate(found):
        marks = io[f"boundaries_{stage}"]
        for sequence, length in enumerate(rows):
            got = chances[sequence, :length]
            np.testing.assert_allclose(got, io[f"boundary_probabilities_{stage}"][sequence, :length], atol=1e-6)
            np.testing.assert_array_equal(begins(got), marks[sequence, :length])
        rows = np.array([marks[sequence, :length].sum() for sequence, length in enumerate(rows)])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("chunk", [1, 7, 101])
def test_streamed_logits_are_the_stored_ones(name: str, chunk: int) -> None:
    """By stages, in calls of any length."""
    io, model = np.load(GOLDENS / name / "io.npz"), load(GOLDENS / name)
    for ids, expected, marks in zip(io["ids"], io["logits"], io["boundaries_0"], strict=True):
        session = torch_session(model)
        found = [session.advance(ids[None, start : start + chunk]) for start in range(0, len(ids), chunk)]
        np.testing.assert_allclose(np.concatenate(found, 1)[0], expected, atol=TOLERANCE)
        assert session.fires["encoder.1" if "encoder.1" in session.fires else "main"] == marks.sum()


def test_it_is_recognised_by_its_class_or_by_its_own_json() -> None:
    """And nothing else is."""
    assert is_hnet({"class": "HNetForCausalLM"}, GOLDENS)
    assert is_hnet(PUBLISHED, GOLDENS)
    assert not is_hnet({"class": "MEGABYTE", "arch_layout": []}, GOLDENS)
    assert not is_hnet({}, GOLDENS)


def test_the_originals_own_json(checkpoint: Path) -> None:
    """As its repository has them, without a class; weights as a .pt."""
    kwargs = json.loads((checkpoint / "config.json").read_text())["kwargs"]
    (checkpoint / "config.json").write_text(json.dumps(kwargs))
    torch.save(load_file(checkpoint / "model.safetensors"), checkpoint / "hnet.pt")
    (checkpoint / "model.safetensors").unlink()
    io, loaded = np.load(checkpoint / "io.npz"), load_model(checkpoint)
    assert loaded.source_format == "hnet"
    np.testing.assert_allclose(logits_of(loaded.model, io["ids"]), io["logits"], atol=TOLERANCE)


def test_a_published_configuration() -> None:
    """A window does not count the row itself there; feed-forward blocks are of multiples of 128."""
    config = config_from_kwargs(PUBLISHED)
    assert [scale.towers for scale in config.scales] == [("m4", "m4"), ("T1m4", "m4T1"), ("T26",)]
    assert [scale.dim for scale in config.scales] == [1024, 1024, 1536]
    assert [scale.window for scale in config.scales] == [1024, 1024, None]
    assert [scale.heads for scale in config.scales] == [1, 16, 16]  # no layer of the outermost attends
    assert [scale.layer().ff_dim for scale in config.scales] == [0, 2816, 4096]
    assert [scale.rotary_dims for scale in config.scales] == [0, 32, 48]
    assert (config.state, config.taps, config.expand, config.vocab_size, config.tied) == (128, 4, 2, 256, False)


def test_defaults_are_the_originals() -> None:
    """Of what its configuration may leave out."""
    config = config_from_kwargs({key: value for key, value in PUBLISHED.items() if key not in ("vocab_size", "ssm_cfg")})
    assert (config.vocab_size, config.state, config.taps, config.expand) == (256, 128, 4, 2)


def test_layers_are_written_in_runs() -> None:
    """Of four kinds."""
    assert layers_of("T1m2M1t3") == "TmmMttt"


def test_a_tied_head(checkpoint: Path) -> None:
    """Which the weights may have once, or twice if they are the same."""
    change_kwargs(checkpoint, tie_embeddings=True)
    with pytest.raises(CheckpointError, match=r'"tie_embeddings": true, but lm_head.weight in .* is not embeddings.weight'):
        load(checkpoint)
    table = load_file(checkpoint / "model.safetensors")["embeddings.weight"]
    change_tensors(checkpoint, lm_head__weight=table.clone())
    twice = logits_of(load(checkpoint), np.arange(9)[None])
    change_tensors(checkpoint, lm_head__weight=None)
    np.testing.assert_array_equal(logits_of(load(checkpoint), np.arange(9)[None]), twice)


def test_no_chance_is_computed_with_the_kernels_size(checkpoint: Path) -> None:
    """`chunk_size` is accepted, whatever it is."""
    change_kwargs(checkpoint, ssm_cfg={"chunk_size": 8, "d_conv": 4, "d_state": 12, "expand": 2})
    io = np.load(checkpoint / "io.npz")
    np.testing.assert_allclose(logits_of(load(checkpoint), io["ids"]), io["logits"], atol=TOLERANCE)


ATTENTION = {"num_heads": [2, 2, 2], "rotary_emb_dim": [16, 16, 16], "window_size": [1023, 6, -1]}


@pytest.mark.parametrize(
    ("changes", "error", "reason"),
    [
        ({"dropout": 0.1}, CheckpointError, "unknown field `dropout`"),
        ({"ssm_cfg": {"headdim": 32}}, CheckpointError, r"unknown field `headdim` - at `\$.ssm_cfg`"),
        ({"ssm_cfg": {"ngroups": 2}}, CheckpointError, r"unknown field `ngroups` - at `\$.ssm_cfg`"),
        ({"attn_cfg": ATTENTION | {"rotary_emb_base": 5e5}}, CheckpointError, r"unknown field `rotary_emb_base`"),
        ({"attn_cfg": ATTENTION | {"qkv_proj_bias": True}}, CheckpointError, "field `qkv_proj_bias`"),
        ({"attn_cfg": ATTENTION | {"window_size": [1023, -2, -1]}}, CheckpointError, "of scale 1 is -2, expected -1"),
        ({"attn_cfg": ATTENTION | {"window_size": [1023, 6]}}, CheckpointError, "has 2 attn_cfg.window_size, but .* 3 scales"),
        ({"attn_cfg": ATTENTION | {"rotary_emb_dim": [0, 15, 0]}}, ConfigError, "rotary_dims must be .* head's 32, got 15"),
        ({"attn_cfg": ATTENTION | {"rotary_emb_dim": [0, 34, 0]}}, ConfigError, "rotary_dims must be .* head's 32, got 34"),
        ({"attn_cfg": ATTENTION | {"num_heads": [2, 3, 2]}}, ConfigError, "heads must divide the width 64, got 3"),
        ({"d_model": [64, 64]}, CheckpointError, "has 2 d_model, but arch_layout has 3 scales"),
        ({"d_model": [64, 64, 32]}, ConfigError, "scale 2 is 32 wide, expected at least the 64 of the one around"),
        ({"d_model": "64"}, CheckpointError, r"Expected `array`, got `str` - at `\$.d_model`"),
        ({"d_intermediate": [0, 0, 100]}, ConfigError, "scale 1 has layers with feed forward, so that ff_dim"),
        ({"ssm_cfg": {"d_conv": 1}}, ConfigError, "taps of a Mamba-2 layer must be at least 2, got 1"),
        ({"arch_layout": ["m1", "T1", "m1"]}, CheckpointError, "has arch_layout .*, expected .* such as"),
        ({"arch_layout": [["T1"]]}, CheckpointError, "has arch_layout .*, expected .* such as"),
        ({"arch_layout": ["m1", ["T1m1", ["x2"], "m1"], "m1"]}, ConfigError, 'has the layers "x2", expected letters of mMtT'),
        ({"tie_embeddings": "yes"}, CheckpointError, "Expected `bool`, got `str`"),
    ],
)
def test_settings_that_can_not_be(checkpoint: Path, changes: Any, error: type[Exception], reason: str) -> None:
    """Refused by name."""
    change_kwargs(checkpoint, **changes)
    with pytest.raises(error, match=reason):
        load(checkpoint)


def test_one_scale_alone() -> None:
    """A tower is no hierarchy."""
    one = {"num_heads": [2], "rotary_emb_dim": [0], "window_size": [-1]}
    with pytest.raises(ConfigError, match="an H-Net has at least 2 scales, got 1"):
        config_from_kwargs({"arch_layout": ["m1"], "d_model": [64], "d_intermediate": [0], "attn_cfg": one})


def test_tensors_that_do_not_fit_are_named_as_in_the_file(checkpoint: Path) -> None:
    """By the original's names, not ours."""
    change_tensors(
        checkpoint,
        backbone__main_network__main_network__pad_dimension=None,
        backbone__main_network__encoder__layers__0__mlp__fc1__weight=torch.zeros(3, 3),
        backbone__encoder__layers__0__mixer__conv1d__weight=torch.zeros(152, 4),
        backbone__encoder__layers__0__mlp__fc1__weight=torch.zeros(4, 4),
    )
    with pytest.raises(CheckpointError) as caught:
        load(checkpoint)
    for part in (
        "missing backbone.main_network.main_network.pad_dimension",
        "extra backbone.encoder.layers.0.mlp.fc1.weight",
        "backbone.main_network.encoder.layers.0.mlp.fc1.weight has shape (3, 3), expected (256, 64)",
        "backbone.encoder.layers.0.mixer.conv1d.weight has shape (152, 4), expected (152, 1, 4)",
    ):
        assert part in str(caught.value)


def test_weights_without_their_configuration(checkpoint: Path) -> None:
    """Whose they are, and a configuration to begin with."""
    (checkpoint / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"holds the weights of H-Net.*write a config.json beside it.*arch_layout"):
        load_model(checkpoint)
