"""Makes the small MEGABYTE goldens with the package itself (`megabyte_16x4` was made likewise, with seed 5).

Run it where `pip install MEGABYTE-pytorch==0.3.6 safetensors numpy` has been done.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from MEGABYTE_pytorch import MEGABYTE
from safetensors.torch import save_file

HERE = Path(__file__).parent
BATCH = 2
GOLDENS: dict[str, dict[str, Any]] = {
    "megabyte_4x3x5_rotary": {
        "num_tokens": 64,
        "dim": (28, 20, 17),  # an odd width: token shift halves it unevenly
        "depth": (2, 1, 2),
        "max_seq_len": (4, 3, 5),
        "heads": 2,
        "dim_head": 8,
        "rel_pos": True,
        "pos_emb": False,
    },
    "megabyte_7x5_learned": {
        "num_tokens": 64,
        "dim": (28, 20),
        "depth": (1, 2),
        "max_seq_len": (7, 5),
        "heads": 3,
        "dim_head": 7,
        "rel_pos": False,
        "pos_emb": True,
    },
}


def build(kwargs: dict[str, Any], seed: int) -> torch.nn.Module:
    """A random model, its norms disturbed so that no term vanishes."""
    torch.manual_seed(seed)
    model = MEGABYTE(**kwargs).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".g") or "norm" in name or parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def make(name: str, kwargs: dict[str, Any], seed: int) -> None:
    """Write one golden."""
    directory = HERE / name
    directory.mkdir(exist_ok=True)
    model, length = build(kwargs, seed), math.prod(kwargs["max_seq_len"])
    ids = torch.randint(1, kwargs["num_tokens"], (BATCH, length))
    with torch.no_grad():
        logits = model(ids)
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, directory / "model.safetensors")
    (directory / "model.safetensors").chmod(0o644)
    np.savez_compressed(directory / "io.npz", ids=ids.numpy(), logits=logits.numpy())
    config = {
        "package": "MEGABYTE-pytorch",
        "version": "0.3.6",
        "class": "MEGABYTE",
        "torch": torch.__version__,
        "kwargs": kwargs,
        "made_by": "tests/golden_families/make_megabyte.py",
        "logits_index": "logits[t] predicts ids[t+1]",
    }
    (directory / "config.json").write_text(json.dumps(config, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for seed, (name, kwargs) in enumerate(GOLDENS.items()):
        make(name, kwargs, seed)
