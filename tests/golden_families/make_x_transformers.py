"""Makes the goldens of x-transformers with the package itself.

Run it where `pip install x-transformers==2.31.10 safetensors numpy` has been done.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from x_transformers import Decoder, TransformerWrapper

HERE = Path(__file__).parent
GOLDENS: dict[str, dict[str, Any]] = {
    "x_transformers": {"num_tokens": 61, "max_seq_len": 40, "attn_layers": {"dim": 24, "depth": 3, "heads": 2}},
    "x_transformers_tied": {
        "num_tokens": 61,
        "max_seq_len": 33,
        "attn_layers": {"dim": 20, "depth": 1, "heads": 3, "attn_dim_head": 7, "ff_mult": 3, "norm_add_unit_offset": False},
        "tie_embedding": True,
    },
}


def build(kwargs: dict[str, Any]) -> torch.nn.Module:
    """A random model of weights that fp16 can hold, disturbed so that no term vanishes."""
    torch.manual_seed(4)
    model = TransformerWrapper(**{**kwargs, "attn_layers": Decoder(**kwargs["attn_layers"])}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1).copy_(parameter.half().float())
    return model


def make(name: str, kwargs: dict[str, Any]) -> None:
    """Write one golden."""
    directory = HERE / name
    directory.mkdir(exist_ok=True)
    model = build(kwargs)
    ids = torch.randint(0, kwargs["num_tokens"], (2, kwargs["max_seq_len"]))
    with torch.no_grad():
        logits = model(ids)
    tensors = {key: value.half().contiguous() for key, value in model.state_dict().items()}
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    (directory / "model.safetensors").chmod(0o644)
    np.savez_compressed(directory / "io.npz", ids=ids.numpy(), logits=logits.numpy())
    config = {
        "package": "x-transformers",
        "version": "2.31.10",
        "class": "TransformerWrapper",
        "kwargs": {**kwargs, "attn_layers": {"class": "Decoder", **kwargs["attn_layers"]}},
        "made_by": "tests/golden_families/make_x_transformers.py",
    }
    (directory / "config.json").write_text(json.dumps(config, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name, kwargs in GOLDENS.items():
        make(name, kwargs)
