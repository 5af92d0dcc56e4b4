"""lucidrains' HourglassTransformerLM checkpoints: the stored logits, and the original package itself."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import hourglass_transformer_pytorch.hourglass_transformer_pytorch as original
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from specimens import GOLDEN, GOLDENS, full_forward

from foveal import CheckpointError, ConfigError
from foveal.models.readers.loading import load_model
from foveal.models.readers.lucidrains import config_from_kwargs, from_state_dict

original.math = math  # the package forgets to import it: any length that is no multiple of the factor fails otherwise

SIZES: dict[str, Any] = {"num_tokens": 29, "dim": 20, "max_seq_len": 80}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A golden checkpoint of our own to damage."""
    return Path(shutil.copytree(GOLDEN / "s3_linear_noattn", tmp_path / "c"))


def change_kwargs(checkpoint: Path, **changes: Any) -> None:
    """Edit the constructor's arguments in config.json."""
    path = checkpoint / "config.json"
    config = json.loads(path.read_text())
    config["kwargs"].update(changes)
    path.write_text(json.dumps(config))


@pytest.mark.parametrize("name", GOLDENS)
def test_the_stored_logits(name: str) -> None:
    """Every golden checkpoint, at every position."""
    loaded = load_model(GOLDEN / name)
    stored = np.load(GOLDEN / name / "io.npz")
    assert loaded.source_format == "lucidrains"
    np.testing.assert_allclose(full_forward(loaded.model, stored["ids"].astype(np.int64)), stored["logits"], atol=5e-6)


@st.composite
def depths(draw: st.DrawFn, levels: int) -> Any:
    """Nested (pre, inside, post), or an integer at the bottom."""
    if levels == 0:
        return draw(st.integers(1, 2))
    return (draw(st.integers(0, 2)), draw(depths(levels - 1)), draw(st.integers(0, 2)))


@st.composite
def originals(draw: st.DrawFn) -> tuple[dict[str, Any], torch.nn.Module]:
    """Any model the package can build, its norms and biases disturbed so that no term vanishes."""
    levels = draw(st.integers(0, 3))
    factors = tuple(draw(st.lists(st.sampled_from([2, 3, 4, 5]), min_size=levels, max_size=levels)))
    is_int = levels > 0 and draw(st.booleans())
    kwargs = SIZES | {
        "depth": draw(depths(levels)),
        "shorten_factor": (factors[0] if is_int else factors) if levels else None,
        "heads": draw(st.integers(1, 3)),
        "dim_head": draw(st.sampled_from([4, 7, 8, 12])),
        "attn_resampling": draw(st.booleans()),
        "updown_sample_type": draw(st.sampled_from(["naive", "linear"])),
    }
    torch.manual_seed(draw(st.integers(0, 999)))
    model = original.HourglassTransformerLM(**kwargs).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return kwargs, model


@given(originals(), st.integers(1, 75))
def test_any_model_of_the_package(drawn: tuple[dict[str, Any], torch.nn.Module], length: int) -> None:
    """foveal's conversion of its state_dict gives its logits, at lengths that are multiples of nothing."""
    kwargs, model = drawn
    as_json = json.loads(json.dumps(kwargs))
    converted = from_state_dict(dict(model.state_dict()), config_from_kwargs(as_json), Path("state_dict"))
    ids = np.random.default_rng(length).integers(0, SIZES["num_tokens"], (2, length))
    with torch.no_grad():
        expected = model(torch.from_numpy(ids)).numpy()
    np.testing.assert_allclose(full_forward(converted, ids), expected, atol=1e-4)


@pytest.mark.parametrize("name", ["model.pt", "pytorch_model.bin"])
def test_a_plain_state_dict_file(checkpoint: Path, name: str) -> None:
    """Saved by torch.save, read with weights_only=True."""
    torch.save(load_file(checkpoint / "model.safetensors"), checkpoint / name)
    (checkpoint / "model.safetensors").unlink()
    stored = np.load(checkpoint / "io.npz")
    logits = full_forward(load_model(checkpoint).model, stored["ids"].astype(np.int64))
    np.testing.assert_allclose(logits, stored["logits"], atol=5e-6)


def test_defaults_are_the_packages() -> None:
    """Arguments left out mean what the package's constructor means."""
    config = config_from_kwargs(SIZES | {"depth": [2, 4, 2], "shorten_factor": 4})
    assert (config.heads, config.head_dim, config.ff_dim) == (8, 64, 80)
    assert (config.hierarchy, config.shortening, config.upsampling) == ("2@1 4@4 2@1", "attention", "attention")


def test_a_list_of_factors_is_used_outermost_first() -> None:
    """And an integer at every level."""
    nested = SIZES | {"depth": [2, [1, 3, 1], 2]}
    assert config_from_kwargs(nested | {"shorten_factor": [2, 5]}).hierarchy == "2@1 1@2 3@10 1@2 2@1"
    assert config_from_kwargs(nested | {"shorten_factor": 3}).hierarchy == "2@1 1@3 3@9 1@3 2@1"


@pytest.mark.parametrize(
    ("changes", "error", "reason"),
    [
        ({"causal": False}, ConfigError, "causal=False; only causal models"),
        ({"shorten_factor": []}, ConfigError, r"shorten_factor \[\] has 0 entries, expected one for each of 1 levels"),
        ({"shorten_factor": 1}, ConfigError, "got 1 inside 1"),
        ({"depth": [1, 2]}, ConfigError, r"depth must be an integer or \[pre, inside, post\], got \[1, 2\]"),
        ({"rotary": True}, CheckpointError, "unknown field `rotary`"),
        ({"heads": "many"}, CheckpointError, r"Expected `int`, got `str`"),
        ({"updown_sample_type": "cubic"}, CheckpointError, "Invalid enum value 'cubic'"),
    ],
)
def test_arguments_that_can_not_be(checkpoint: Path, changes: Any, error: type[Exception], reason: str) -> None:
    """Refused before any weight is read."""
    change_kwargs(checkpoint, **changes)
    with pytest.raises(error, match=reason):
        load_model(checkpoint)


def test_tensors_that_do_not_fit_are_named_as_in_the_file(checkpoint: Path) -> None:
    """By lucidrains' names, not ours; dead weights must be there too."""
    path = checkpoint / "model.safetensors"
    tensors = load_file(path)
    del tensors["transformer.downsample.proj.bias"]
    tensors["transformer.pre_transformer.layers.0.0.fn.to_q.weight"] = torch.zeros(3, 3)
    tensors["transformer.rotary.freqs"] = torch.zeros(2)
    save_file(tensors, path)
    with pytest.raises(CheckpointError) as caught:
        load_model(checkpoint)
    for part in (
        "missing transformer.downsample.proj.bias",
        "extra transformer.rotary.freqs",
        "to_q.weight has shape (3, 3), expected (48, 40)",
    ):
        assert part in str(caught.value)


def test_no_weights(checkpoint: Path) -> None:
    """The names that would do are listed."""
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no weights in .*; expected model\.safetensors, or one file"):
        load_model(checkpoint)


def test_no_arguments(checkpoint: Path) -> None:
    """A state_dict alone does not tell the heads."""
    (checkpoint / "config.json").write_text(json.dumps({"class": "HourglassTransformerLM"}))
    with pytest.raises(
        CheckpointError, match=r"has no kwargs, expected an object with the arguments of HourglassTransformerLM"
    ):
        load_model(checkpoint)
