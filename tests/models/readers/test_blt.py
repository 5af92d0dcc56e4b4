"""Checkpoints of BLT, as transformers saves them: the original's logits, for any configuration, and what can't be read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from blt_originals import configurations, converted, logits_of_original, original, random_text
from hypothesis import given
from hypothesis import strategies as st
from torch_sessions import logits_of, torch_session

import foveal
from foveal import CheckpointError, ConfigError, EquivalenceError
from foveal.export import verify
from foveal.models.blt.model import Blt
from foveal.models.readers.blt import is_blt, load_blt
from foveal.models.readers.loading import load_model
from foveal.models.weights import Reading
from foveal.runtime.model import Model

GOLDEN = Path(__file__).parents[2] / "golden_families" / "blt_tiny"
CONFIG: dict[str, Any] = json.loads((GOLDEN / "config.json").read_text())
TOLERANCE = 1e-5
TOWER = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 20}
SMALL: dict[str, Any] = {
    "vocab_size": 61,
    "encoder_hash_byte_group_vocab": 31,
    "encoder_config": {**TOWER, "vocab_size": 61},
    "global_config": {**TOWER, "hidden_size": 24},
    "decoder_config": {**TOWER, "vocab_size": 61, "hidden_size_global": 24},
    "patcher_config": {**TOWER, "vocab_size": 61},
}
"""Arguments of the original's configuration."""


def relative(got: np.ndarray, expected: np.ndarray) -> float:
    """The largest error, as a share of the largest logit."""
    return float(np.abs(got - expected).max() / np.abs(expected).max())


@pytest.fixture
def model() -> Blt:
    """The golden's."""
    return load_blt(GOLDEN, CONFIG)


@pytest.fixture
def io() -> dict[str, np.ndarray]:
    """What the original was given, and what it gave."""
    return dict(np.load(GOLDEN / "io.npz"))


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """Saves a small original, with changes to its `config.json`."""

    def save(changes: dict[str, Any] | None = None, **arguments: Any) -> Path:
        original({**SMALL, **arguments}).save_pretrained(tmp_path)
        path = tmp_path / "config.json"
        config = json.loads(path.read_text())
        for name, value in (changes or {}).items():
            *place, key = name.split(".")
            (config[place[0]] if place else config)[key] = value
        path.write_text(json.dumps(config))
        return tmp_path

    return save


def test_logits_are_those_of_the_original(model: Blt, io: dict[str, np.ndarray]) -> None:
    """Of two texts whose patches end at different bytes; the original's norms are float32 even in float64."""
    np.testing.assert_allclose(logits_of(model, io["ids"]), io["logits_f64"], atol=TOLERANCE)
    np.testing.assert_allclose(logits_of(model.double(), io["ids"]), io["logits_f64"], atol=3e-6)


def test_entropies_and_boundaries_are_those_of_the_original(model: Blt, io: dict[str, np.ndarray]) -> None:
    """The original says which bytes start a patch: those after the ones that end one."""
    ids = torch.from_numpy(io["ids"])
    with torch.no_grad():
        np.testing.assert_allclose(model.boundary_values(ids).numpy(), io["entropies"], atol=TOLERANCE)
        assert (model.closes(ids)[:, :-1].numpy() == io["boundaries"][:, 1:]).all()


def test_streamed_logits_are_those_of_the_original(model: Blt, io: dict[str, np.ndarray]) -> None:
    """Byte by byte."""
    for ids, expected in zip(io["ids"], io["logits_f64"], strict=True):
        session = torch_session(model)
        found = np.concatenate([session.advance([[token]]) for token in ids.tolist()], 1)
        np.testing.assert_allclose(found[0], expected, atol=TOLERANCE)


@given(configurations(), st.integers(0, 3), st.sampled_from([1, 2, 3, 40]))
def test_any_configuration_has_the_logits_of_the_original(arguments: dict[str, Any], seed: int, tokens: int) -> None:
    """Widths, layers, windows, hashes, thresholds, tied or not; layers without effect are left out."""
    theirs, ids = original(arguments, seed), random_text(2, 40, seed)[:, :tokens]
    with TemporaryDirectory() as directory:
        ours = converted(theirs, Path(directory))
    with torch.no_grad():
        ends = theirs.model.patcher(ids)[0] > theirs.config.patching_threshold
        assert (ours.closes(ids)[:, 1:] == ends[:, 1:]).all()
    assert relative(logits_of(ours, ids.numpy()), logits_of_original(theirs, ids)) < 2 * TOLERANCE


@pytest.mark.parametrize("changes", [{"patching_mode": "space"}, {"patching_mode": "byte"}, {"patch_in_forward": False}])
def test_without_entropy_the_original_makes_each_byte_a_patch(changes: dict[str, Any], saved: Callable[..., Path]) -> None:
    """Whatever its configuration calls that; so does foveal, and says so."""
    theirs, path = original({**SMALL, **changes}), saved(**changes)
    loaded, ids = load_model(path), random_text(2, 20, 0)
    assert relative(logits_of(loaded.model, ids.numpy()), logits_of_original(theirs, ids)) < TOLERANCE
    assert loaded.source_format == "blt"
    name = next(iter(changes))
    assert any(name in note and "makes each byte a patch of its own" in note for note in loaded.notes)


@pytest.mark.parametrize("rule", ["fixed:1", "fixed:3", "fixed:50"])
def test_another_rule_gives_what_the_original_gives_for_such_patches(rule: str, saved: Callable[..., Path]) -> None:
    """The first byte alone, and then so many bytes each; there, a patch that has ended is one that another follows."""
    theirs, ids, size = original(SMALL), random_text(2, 20, 0), int(rule.split(":")[1])
    lengths = [1, *(min(size, 20 - start) for start in range(1, 20, size)), *([] if 19 % size else [0])]
    expected = logits_of_original(theirs, ids, patch_lengths=torch.tensor([lengths, lengths]))
    path, reading = saved({"boundaries": rule}), Reading(boundaries=rule)
    assert relative(logits_of(load_model(path).model, ids.numpy()), expected) < TOLERANCE
    config = {**json.loads((path / "config.json").read_text()), "boundaries": None}
    ours = load_blt(path, config, reading)
    assert relative(logits_of(ours, ids.numpy()), expected) < TOLERANCE
    assert reading.notes == [f'the patcher is left out: boundaries "{rule}" have no use for it']


def test_spaces_may_end_patches(io: dict[str, np.ndarray]) -> None:
    """Of a checkpoint whose ids are the tokenizer's."""
    model = load_blt(GOLDEN, CONFIG, Reading(boundaries="space"))
    ids = np.array([[4 + byte for byte in b"a bc, d\nef"]])
    with torch.no_grad():
        assert model.closes(torch.from_numpy(ids))[0].tolist() == [True, *(byte in b" ,\n" for byte in b" bc,_d\nef")]


def test_another_threshold(model: Blt) -> None:
    """Said when it is loaded, or in config.json."""
    assert model.config.threshold == CONFIG["patching_threshold"]
    assert load_blt(GOLDEN, CONFIG, Reading(threshold=2.0)).config.threshold == 2.0
    assert load_blt(GOLDEN, {**CONFIG, "patching_threshold": 1.0}).config.threshold == 1.0
    for threshold in (-0.1, 5.6):
        with pytest.raises(ConfigError, match=f"threshold is {threshold} nats, expected 0 to 5.5607"):
            load_blt(GOLDEN, CONFIG, Reading(threshold=threshold))


@pytest.mark.parametrize("saved_twice", [False, True])
def test_a_tied_head(saved: Callable[..., Path], saved_twice: bool) -> None:
    """Of the two matrices one is saved, whichever; others save both."""
    path = saved(tie_word_embeddings=True)
    file = path / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    names = {"lm_head.weight", "model.local_encoder.embed_tokens.weight"} & tensors.keys()
    assert len(names) == 1
    if saved_twice:
        tensors |= {
            "lm_head.weight": tensors[next(iter(names))],
            "model.local_encoder.embed_tokens.weight": tensors[next(iter(names))].clone(),
        }
        safetensors.torch.save_file(tensors, file)
    ids = random_text(1, 20, 0)
    expected = logits_of_original(original({**SMALL, "tie_word_embeddings": True}), ids)
    model = load_model(path).model
    assert relative(logits_of(model, ids.numpy()), expected) < TOLERANCE
    if saved_twice:
        tensors["lm_head.weight"] += 1
        safetensors.torch.save_file(tensors, file)
        with pytest.raises(CheckpointError, match="tie_word_embeddings true, but .* differ"):
            load_model(path)


def test_shards(saved: Callable[..., Path], tmp_path: Path) -> None:
    """A large model is saved in several files, the head in any of them."""
    original(SMALL).save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert (tmp_path / "shards" / "model.safetensors.index.json").is_file()
    ids = random_text(1, 20, 0).numpy()
    shards, whole = load_model(tmp_path / "shards").model, load_model(saved()).model
    assert np.array_equal(logits_of(shards, ids), logits_of(whole, ids))


def test_what_a_blt_is_recognised_by() -> None:
    """Its config.json: no shape shows how many heads it has."""
    assert is_blt(CONFIG, GOLDEN)
    assert is_blt({"architectures": ["BltForCausalLM"]}, GOLDEN)
    assert not is_blt({}, GOLDEN)
    assert not is_blt({"model_type": "llama"}, GOLDEN)


def test_defaults_are_the_original_s(saved: Callable[..., Path]) -> None:
    """Of what config.json leaves out; a published model's is as short."""
    from transformers import BltConfig  # takes seconds

    from foveal.models.readers.blt import _sizes, _whole

    said = BltConfig().to_dict()
    for config in ({"model_type": "blt"}, said):
        whole = _whole(config)
        sizes = _sizes(config, whole, "entropy", whole.patching_threshold)
        assert (sizes.encoder.dim, sizes.encoder.ff_dim, sizes.encoder.window, sizes.encoder_layers) == (1024, 2730, 512, 1)
        assert (sizes.middle.dim, sizes.middle.ff_dim, sizes.middle.window, sizes.middle_layers) == (2048, 5632, None, 25)
        assert (sizes.decoder.dim, sizes.decoder.ff_dim, sizes.decoder_layers, sizes.reads) == (1024, 2816, 9, 9)
        assert sizes.patcher is not None
        assert (sizes.patcher.dim, sizes.patcher.window, sizes.patcher.rotary_base, sizes.patcher_layers) == (768, 512, 1e4, 14)
        assert (sizes.encoder.rotary_base, sizes.middle.rotary_base, sizes.decoder.rotary_base) == (5e5, 5e5, 5e5)
        assert (sizes.hash_sizes, sizes.hash_rows, sizes.threshold) == ((3, 4, 5, 6, 7, 8), 500002, 1.335442066192627)


REFUSED = [
    ({"max_patch_length": 4}, "config.json says max_patch_length 4, expected null: transformers cuts patches so that the last"),
    ({"patching_mode": "words"}, "config.json says patching_mode 'words', expected one of entropy, bpe"),
    ({"patch_size": None}, "config.json says patch_size null, expected a number"),
    ({"patching_threshold": None}, "config.json says patching_threshold null, expected a number"),
    ({"vocab_size": 62}, "config.json says encoder_config.vocab_size 61, expected that of vocab_size, 62"),
    ({"patcher_config.vocab_size": 62}, "config.json says patcher_config.vocab_size 62, expected that of vocab_size, 61"),
    ({"cross_attn_k": 3}, "config.json says encoder_config.cross_attn_k 2, expected that of cross_attn_k, 3"),
    ({"decoder_config.cross_attn_k": 1}, "config.json says decoder_config.cross_attn_k 1, expected that of cross_attn_k, 2"),
    (
        {"decoder_config.hidden_size_global": 32},
        "config.json says decoder_config.hidden_size_global 32, expected that of global_config.hidden_size, 24",
    ),
    (
        {"local_attention_window_len": 8},
        "config.json says encoder_config.sliding_window 512, expected that of local_attention_window_len, 8",
    ),
    (
        {"global_config.rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 5e5}},
        "global_config in config.json says rope_parameters {'rope_type': 'yarn', .*expected the rope_type \"default\"",
    ),
    ({"encoder_config.rope_parameters": {"rope_theta": 5e5, "partial_rotary_factor": 0.5}}, 'field "partial_rotary_factor'),
    ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "config.json says rope_scaling {'type': 'dynamic'"),
    ({"patcher_config.rope_scaling": {"type": "linear", "factor": 2.0}}, "says rope_scaling {'type': 'linear'"),
    ({"patcher_config.rope_theta": 3.0}, "patcher_config in config.json says rope_theta .*; leave one"),
    ({"encoder_config.rope_parameters": "default"}, 'says rope_parameters .default., expected the rope_type "default"'),
    ({"encoder_config.rope_parameters": {"rope_theta": -1}}, "says rope_theta -1, expected a number above 0"),
    ({"decoder_config.hidden_act": "gelu"}, "decoder_config in config.json says hidden_act 'gelu', expected 'silu'"),
    ({"encoder_config.attention_bias": True}, "encoder_config in config.json says attention_bias True, expected False"),
    ({"global_config.mlp_bias": True}, "global_config in config.json says mlp_bias True, expected False"),
    ({"encoder_config.head_dim": 4}, "encoder_config in config.json says head_dim 4, expected hidden_size / num_att.*, 8"),
    ({"encoder_config.is_causal": False}, 'encoder_config in config.json has the unknown field "is_causal"'),
    ({"cross_attn_window": 512}, 'config.json has the unknown field "cross_attn_window"'),
    ({"encoder_config": 3}, "encoder_config in config.json is 3, expected an object"),
    ({"vocab_size": "many"}, "config.json: Expected `int`, got `str`"),
    (
        {"encoder_hash_byte_group_vocab": 30},
        r"encoder_hash_tok_embedding.weight has shape \(186, 16\), expected \(180, 16\)",
    ),
    ({"decoder_config.cross_attn_all_layers": False}, "extra model.local_decoder.cross_attn_layers.1.k_norm.weight"),
    ({"encoder_config.num_hidden_layers": 3}, "missing model.local_encoder.layers.2.input_layernorm.weight"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_what_can_t_be_read(changes: dict[str, Any], message: str, saved: Callable[..., Path]) -> None:
    """Each option that would change logits is named, with what was expected."""
    with pytest.raises(CheckpointError, match=message):
        load_model(saved(changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patching_threshold": -1.0}, "threshold is -1.0 nats, expected 0 to 4.1109"),
        ({"patching_threshold": 4.2}, "threshold is 4.2 nats, expected 0 to 4.1109"),
        ({"boundaries": "space"}, 'boundaries "space" are a rule on 260 ids, 4 special ones and then the bytes, .* has 61'),
        ({"boundaries": "never"}, 'boundaries are "never", expected "entropy", "space" or "fixed:"'),
        ({"encoder_config.num_attention_heads": 16}, "heads of 1 dimensions, expected an even number"),
        (
            {"global_config.num_attention_heads": 0},
            "global_config in config.json says num_attention_heads 0, expected",
        ),
        (
            {"global_config.num_key_value_heads": 3},
            "num_key_value_heads of global_config in config.json must divide its 2",
        ),
        ({"patcher_config.sliding_window": 0}, "the window of patcher_config in config.json must be at least 1, got 0"),
        ({"encoder_hash_byte_group_size": [0]}, r"hash_sizes must be 1 to 64 bytes each, got \[0\]"),
    ],
)
def test_sizes_that_mean_nothing(changes: dict[str, Any], message: str, saved: Callable[..., Path]) -> None:
    """Each is named, with what it is."""
    with pytest.raises(ConfigError, match=message):
        load_model(saved(changes))


def test_entropy_needs_a_patcher(saved: Callable[..., Path]) -> None:
    """A checkpoint that was saved without one says what else it may do."""
    path = saved({"boundaries": "entropy"}, patch_in_forward=False)
    with pytest.raises(CheckpointError, match='has no patcher, which boundaries "entropy" need; give it another rule'):
        load_model(path)


def test_weights_alone_say_what_is_missing(tmp_path: Path) -> None:
    """Without config.json there are no heads."""
    shutil.copy(GOLDEN / "model.safetensors", tmp_path)
    with pytest.raises(CheckpointError, match="holds the weights of transformers' BltForCausalLM, but not its sizes"):
        load_model(tmp_path)


def test_converted_it_has_the_logits_of_the_original(tmp_path: Path, io: dict[str, np.ndarray]) -> None:
    """Of engines: in one call, byte by byte, after a rewind from other bytes, and in a batch of two texts."""
    model, texts, expected = _converted_golden(tmp_path), io["ids"].tolist(), io["logits_f64"]
    session = model.session()
    np.testing.assert_allclose(session.advance([texts[0]])[0], expected[0], atol=TOLERANCE)
    assert 20 < session.fires["global"] < 70
    session.rewind(60)
    session.advance([texts[1][:7]])
    session.rewind(7)
    place = session.position
    fork = session.fork()
    for one in (session, fork):
        found = np.concatenate([one.advance([[token]]) for token in texts[0][place : place + 20]], 1)
        np.testing.assert_allclose(found[0], expected[0][place : place + 20], atol=TOLERANCE)
    with model.batch(2, prefill_seconds=0) as batch:
        going = {batch.join(text[: 5 + 4 * number]): number for number, text in enumerate(texts)}
        logits = batch.step()
        for _ in range(30):
            for sequence, row in logits.items():
                np.testing.assert_allclose(row, expected[going[sequence]][sequence.position - 1], atol=TOLERANCE)
            ready = [one for one in going if one.state == "ready"]
            logits = batch.step({one: texts[going[one]][one.position] for one in ready})


def _converted_golden(directory: Path) -> Model:
    foveal.convert(GOLDEN, directory / "b")
    return foveal.load(directory / "b", threads=1)


def test_another_rule_when_it_is_converted(saved: Callable[..., Path]) -> None:
    """By name or threshold, of a BLT; its ids are known to be bytes plus 4."""
    assert load_model(GOLDEN).ids == "bytes+4"
    assert load_model(GOLDEN, "fixed:4").model.describe().hierarchy.split()[1] == "2@~4"
    assert load_model(GOLDEN, threshold=2.0).model.clock.threshold == 2.0  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match='a threshold is for boundaries "entropy", got 2.0 for "space"'):
        load_model(GOLDEN, "space", 2.0)
    with pytest.raises(ConfigError, match="of the layout lucidrains, whose boundaries can't be replaced"):
        load_model(GOLDEN.parents[1] / "golden" / "s4_naive_attn", "space")


def test_verified_by_the_rule_that_it_was_converted_with(tmp_path: Path) -> None:
    """Without it the checkpoint is another model; a model in memory has its own."""
    bundle = foveal.convert(GOLDEN, tmp_path / "b", boundaries="fixed:4")
    with pytest.raises(EquivalenceError, match="with the boundaries and threshold that it was converted with"):
        verify(bundle, GOLDEN)
    with pytest.raises(EquivalenceError, match="expected"):
        verify(bundle, GOLDEN, boundaries="fixed:5")
    with pytest.raises(ConfigError, match="the blt in memory has boundaries of its own; leave boundaries and threshold out"):
        verify(bundle, load_model(GOLDEN).model, boundaries="fixed:4")
    verify(bundle, GOLDEN, boundaries="fixed:4").require_equal()
