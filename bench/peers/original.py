"""The model that all peers run, written once: random weights, and the logits that PyTorch gives for them in fp32."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..random_models import RandomModels

SIZES = RandomModels(dim=512, heads=8, ff_dim=2048, vocab_size=256, context=1024)
"""Of the Hourglass paper's Table 1 (arXiv 2110.13711), bytes as tokens."""
PROMPT, STEPS = 512, 16
"""What logits are compared of: the last row of a prompt of so many tokens, and the rows of so many single tokens behind it."""
REFERENCE = "reference.npz"


def write_original(hierarchy: str, directory: Path) -> Path:
    """The folder with `config.json`, `model.safetensors` (fp32) and `reference.npz`: `ids` `[PROMPT + STEPS]` and `logits`
    `[1 + STEPS, V]` of their last rows. One that is there is kept: the same weights come out at every call.
    """
    import torch

    from ...models.checkpoint import save_checkpoint

    place = directory / hierarchy
    if (place / REFERENCE).exists():
        return place
    model = SIZES.build(hierarchy)
    save_checkpoint(model, place, torch.float32)
    ids = np.random.default_rng(1).integers(0, SIZES.vocab_size, PROMPT + STEPS)
    with torch.inference_mode():
        logits = model(torch.from_numpy(ids)[None])[0, PROMPT - 1 :].numpy()
    np.savez(place / REFERENCE, ids=ids, logits=logits)  # last: where it is, all is
    return place
