"""transformers' `BltForCausalLM`, small and of any shape: what foveal's BLT is held to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from transformers import BltConfig, BltForCausalLM

from foveal.models.blt.model import Blt
from foveal.models.readers.blt import load_blt
from foveal.models.weights import Reading

VOCABULARY = 61


@st.composite
def towers(draw: st.DrawFn, dim: int | None = None) -> dict[str, Any]:
    """Sizes of one of the four models."""
    heads = draw(st.sampled_from([1, 2, 4]))
    return {
        "hidden_size": dim or heads * draw(st.sampled_from([4, 6, 8])),
        "num_attention_heads": heads if dim is None else draw(st.sampled_from([1, 2])),
        "num_key_value_heads": 1 if draw(st.booleans()) else None,
        "num_hidden_layers": draw(st.integers(1, 3)),
        "intermediate_size": draw(st.sampled_from([0, 20])),
        "rms_norm_eps": draw(st.sampled_from([1e-5, 1e-2])),
        "rope_parameters": {"rope_type": "default", "rope_theta": draw(st.sampled_from([100.0, 10_000.0, 500_000.0]))},
    }


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, Any]:
    """Arguments of `BltConfig`, with a `threshold_quantile` for who builds the model: which share of entropies is below it."""
    dim, k = draw(st.sampled_from([16, 24])), draw(st.integers(1, 3))
    middle = draw(towers(dim * k if draw(st.booleans()) else None))
    local = {"vocab_size": VOCABULARY, "cross_attn_k": k}
    return {
        "vocab_size": VOCABULARY,
        "cross_attn_k": k,
        "local_attention_window_len": draw(st.sampled_from([None, 1, 3, 8, 100])),
        "encoder_hash_byte_group_size": draw(st.lists(st.integers(1, 9), min_size=1, max_size=4)),
        "encoder_hash_byte_group_vocab": draw(st.sampled_from([1, 7, 101, 5003])),
        "encoder_hash_byte_group_nb_functions": draw(st.sampled_from([1, 1, 2, 13])),
        "encoder_config": {**draw(towers(dim)), **local, "cross_attn_all_layers": draw(st.booleans())},
        "decoder_config": {
            **draw(towers(dim)),
            **local,
            "cross_attn_all_layers": draw(st.booleans()),
            "hidden_size_global": middle["hidden_size"],
        },
        "global_config": middle,
        "patcher_config": {
            **draw(towers()),
            "vocab_size": VOCABULARY,
            "sliding_window": draw(st.sampled_from([None, 2, 9, 100])),
        },
        "tie_word_embeddings": draw(st.booleans()),
        "threshold_quantile": draw(st.sampled_from([None, 0.0, 0.3, 0.7, 0.9, 1.0])),
    }


def original(arguments: dict[str, Any], seed: int = 0) -> BltForCausalLM:
    """A model with random weights, none of which is zero or one, and a threshold that does not come too near any entropy.

    The threshold is that of the configuration if there is no `threshold_quantile`; with one of None, the largest there is.
    """
    rest = {name: value for name, value in arguments.items() if name != "threshold_quantile"}
    torch.manual_seed(seed)
    model = BltForCausalLM(BltConfig(**rest)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.15)
    if "threshold_quantile" in arguments:
        share = arguments["threshold_quantile"]
        model.config.patching_threshold = float(np.log(VOCABULARY)) if share is None else _between(model, share, seed)
    return model


def random_text(batch: int, tokens: int, seed: int) -> torch.Tensor:
    """Ids in which groups come back, so that hashes do."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, VOCABULARY, (batch, tokens), generator=generator)


def _between(model: BltForCausalLM, share: float, seed: int) -> float:
    """Nats in the widest gap between entropies near a quantile of theirs, so that rounding moves no boundary."""
    with torch.no_grad():
        found = model.model.patcher(random_text(2, 40, seed))[0].flatten().sort().values
    if share in (0.0, 1.0):
        return 0.0 if share == 0.0 else float(np.log(VOCABULARY))
    near = found[int(share * (len(found) - 1)) :][:8]
    place = int((near[1:] - near[:-1]).argmax())
    return float((near[place] + near[place + 1]) / 2)


def logits_of_original(model: BltForCausalLM, ids: torch.Tensor, **given: Any) -> np.ndarray:
    """Its full forward; any cache raises."""
    with torch.no_grad():
        found: np.ndarray = model(ids, use_cache=False, **given).logits.numpy()
    return found


def converted(model: BltForCausalLM, directory: Path, **choices: Any) -> Blt:
    """As foveal reads what the original saves."""
    model.save_pretrained(directory)
    return load_blt(directory, json.loads((directory / "config.json").read_text()), Reading(**choices))
