"""Small BLTs with random weights, whose patches are of a few bytes."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import msgspec
import torch
from torch_sessions import shake

from foveal.models.blt.config import BltConfig
from foveal.models.blt.model import Blt
from foveal.models.config import LayerConfig

LLAMA = {"norm": "rms_eps", "activation": "swiglu", "ff_bias": False, "out_bias": False, "rotary_base": 10_000.0}
LOCAL = LayerConfig(dim=24, heads=2, head_dim=12, ff_dim=20, window=9, **LLAMA)
SIZES = {
    "vocab_size": 260,
    "encoder": LOCAL,
    "encoder_layers": 1,
    "middle": LayerConfig(dim=32, heads=4, kv_heads=2, head_dim=8, ff_dim=40, **LLAMA),
    "middle_layers": 2,
    "decoder": LOCAL,
    "decoder_layers": 2,
    "patcher": LayerConfig(dim=16, heads=2, head_dim=8, ff_dim=24, window=12, **LLAMA),
    "patcher_layers": 1,
    "patch_rows": 2,
    "reads": 2,
    "hash_sizes": (3, 5),
    "hash_rows": 53,
    "context": 96,
}


@cache
def random_model(boundaries: str = "entropy", share: float = 0.75, seed: int = 0, **changes: Any) -> Blt:
    """One whose entropies are below the threshold for about this share of bytes: 1, no patch but the first one ever ends."""
    sizes = {**SIZES, "boundaries": boundaries, **changes}
    if boundaries != "entropy":
        sizes |= {"patcher": None, "patcher_layers": 0}
        return _made(BltConfig(**sizes), seed)
    if share in (0.0, 1.0):
        return _made(BltConfig(**sizes, threshold=share * math.log(sizes["vocab_size"])), seed)
    config = BltConfig(**sizes)
    ids = torch.randint(0, config.vocab_size, (4, 64), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        found = _made(config, seed).boundary_values(ids)
    return _made(msgspec.structs.replace(config, threshold=float(found.quantile(share))), seed)


def _made(config: BltConfig, seed: int) -> Blt:
    torch.manual_seed(seed)
    model = Blt(config)
    shake(model, seed)
    return model
