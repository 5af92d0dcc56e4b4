"""A BLT with random weights as transformers makes it, of the published proportions, that ends patches in a given text.

python -m foveal.bench.deciding.original CHECKPOINT --text TEXT.txt
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import BackendUnavailable, ConfigError
from ...runtime.rows import Ids
from ..decode import Load
from ..script import run_script
from ..text import read_text

if TYPE_CHECKING:
    from transformers import BltForCausalLM

VOCABULARY, SPECIAL = 260, 4
"""Ids: four special ones, then the bytes."""
_WINDOW = 512
_SPREAD = 8.0
"""The patcher's head as a multiple of what transformers begins with: with that all entropies are within 0.1 nats."""


@dataclass(frozen=True)
class BltSizes:
    """Widths a quarter of those of facebook/blt-1b, and 0.56 of its layers: 55 M parameters, and 6 M in tables.

    Heads are as wide as there; tables, which are looked up row by row, have fewer rows.
    """

    dim: int = 256
    head_dim: int = 64
    ff_dim: int = 704
    encoder_layers: int = 1
    decoder_layers: int = 5
    middle_dim: int = 512
    middle_head_dim: int = 128
    middle_ff_dim: int = 1408
    middle_layers: int = 14
    patcher_dim: int = 192
    patcher_ff_dim: int = 512
    patcher_layers: int = 8
    hash_rows: int = 4000
    context: int = 4096


def read_bytes(text: str) -> Ids:
    """Ids `[T]` of a text, as BLT's tokenizer has them."""
    return np.frombuffer(text.encode(), np.uint8).astype(np.int64) + SPECIAL


def main() -> None:
    """Write a checkpoint, for `foveal convert`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="a directory to write")
    parser.add_argument("--text", type=Path, required=True, help="UTF-8, on which the threshold is set")
    parser.add_argument("--sequences", type=int, default=1, help="that begin all over the text, each read by itself")
    parser.add_argument("--prompt-bytes", type=int, default=512, help="of each, which do not count")
    parser.add_argument("--new-bytes", type=int, default=1024, help="of each, behind these")
    parser.add_argument("--bytes-per-patch", type=float, default=4.5)
    given = parser.parse_args()
    work = Load(given.prompt_bytes, given.new_bytes, text=read_bytes(read_text(given.text)))
    texts = work.sequences(given.sequences, VOCABULARY)
    random_original(BltSizes(), texts, given.bytes_per_patch, given.prompt_bytes).save_pretrained(given.checkpoint)


def random_original(sizes: BltSizes, texts: Ids, bytes_per_patch: float, begin: int = 0) -> BltForCausalLM:
    """Random weights, the same at every call, and a threshold with which patches of some texts `[n, T]`, each from byte `begin`
    on, have so many bytes on average.

    Raises:
        BackendUnavailable: transformers is not installed.
        ConfigError: patches of less than one byte, or a text of too few.
    """
    import torch

    if bytes_per_patch < 1:
        raise ConfigError(f"patches are to have {bytes_per_patch} bytes on average, expected at least 1")
    torch.manual_seed(0)
    blt = _class()
    model = blt(_config(sizes)).eval()
    with torch.no_grad():
        model.model.patcher.lm_head.weight.mul_(_SPREAD)
    model.config.patching_threshold = threshold_for(entropies(model, texts)[:, begin:].flatten(), bytes_per_patch)
    return model


def _class() -> Any:
    try:
        from transformers import BltForCausalLM
        from transformers.utils import logging
    except ImportError as error:
        raise BackendUnavailable("the original is transformers': pip install transformers==5.24.0") from error
    logging.disable_progress_bar()
    return BltForCausalLM


def _config(sizes: BltSizes) -> Any:
    from transformers import BltConfig

    def tower(dim: int, head_dim: int, ff_dim: int, layers: int, **more: Any) -> dict[str, Any]:
        size = {"hidden_size": dim, "num_attention_heads": dim // head_dim, "num_hidden_layers": layers}
        return {**size, "intermediate_size": ff_dim, "max_position_embeddings": sizes.context, **more}

    local = {"vocab_size": VOCABULARY, "cross_attn_k": 2, "hidden_size_global": sizes.middle_dim}
    return BltConfig(
        vocab_size=VOCABULARY,
        max_position_embeddings=sizes.context,
        local_attention_window_len=_WINDOW,
        encoder_hash_byte_group_vocab=sizes.hash_rows,
        encoder_config=tower(sizes.dim, sizes.head_dim, sizes.ff_dim, sizes.encoder_layers, **local),
        decoder_config=tower(
            sizes.dim, sizes.head_dim, sizes.ff_dim, sizes.decoder_layers, cross_attn_all_layers=True, **local
        ),
        global_config=tower(sizes.middle_dim, sizes.middle_head_dim, sizes.middle_ff_dim, sizes.middle_layers),
        patcher_config=tower(
            *(sizes.patcher_dim, sizes.head_dim, sizes.patcher_ff_dim, sizes.patcher_layers),
            vocab_size=VOCABULARY,
            sliding_window=_WINDOW,
        ),
    )


def entropies(model: BltForCausalLM, texts: Ids) -> Any:
    """Nats that the patcher gives each byte of some texts `[n, T]`, float32 `[n, T]`."""
    import torch

    with torch.no_grad():
        return np.stack([model.model.patcher(torch.from_numpy(text[None]))[0][0].numpy() for text in texts])


def threshold_for(values: Any, bytes_per_patch: float) -> float:
    """Between the two neighbours of the values `[T]` above which one in so many of them lies.

    Raises:
        ConfigError: too few values.
    """
    ordered = np.sort(values)
    above = round(len(ordered) / bytes_per_patch)
    if not 0 < above <= len(ordered):
        raise ConfigError(f"the text has {len(ordered)} bytes, expected enough for patches of {bytes_per_patch}")
    if above == len(ordered):
        return 0.0
    return float((ordered[-above - 1].astype(np.float64) + ordered[-above]) / 2)


def parameters_of(model: BltForCausalLM) -> dict[str, int]:
    """By part; `tables` are looked up row by row."""
    found = dict.fromkeys(("patcher", "encoder", "global", "decoder", "tables"), 0)
    for name, value in model.named_parameters():
        found[_part(name)] += value.numel()
    return found


def _part(name: str) -> str:
    if "hash_tok" in name or name.endswith("embed_tokens.weight"):
        return "tables"
    if name.startswith("lm_head"):
        return "decoder"
    part = name.removeprefix("model.").partition(".")[0]
    return {"local_encoder": "encoder", "local_decoder": "decoder", "global_transformer": "global"}.get(part, part)


if __name__ == "__main__":
    run_script(main)
