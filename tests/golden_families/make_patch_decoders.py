"""Makes the goldens of NotaGen and bGPT with the original code on random weights; run by hand, never by the tests.

    python make_patch_decoders.py NOTAGEN_CLONE BGPT_CLONE

Needs torch and transformers 4.39.3, and clones of github.com/ElectricAlexis/NotaGen (4553cd7) and github.com/sanderwood/bgpt
(56b98d6). `logits` are what the inner tower of the original gives in the first iteration of its own `generate` on ids 0..t, for
every t from the end of the first patch on. `training` are the logits of the original's forward, `[patch - 1, place]`, on ids
that have no zero inside a patch, where its mask of zeros changes nothing.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import GPT2Config

HERE = Path(__file__).parent
SIZES = {"PATCH_STREAM": True, "PATCH_SIZE": 4, "PATCH_LENGTH": 24, "PATCH_SAMPLING_BATCH_SIZE": 0}
DIM, HEADS, LAYERS = 48, 3, (2, 1)
LENGTH = 31


def original(name: str, file: Path) -> Any:
    """The original module, with small sizes and without chance: its sampler takes the likeliest id."""
    config = types.ModuleType("config")
    config.__dict__.update(SIZES)
    samplings = types.ModuleType("samplings")
    samplings.top_k_sampling = samplings.top_p_sampling = lambda probs, **_: probs
    samplings.temperature_sampling = lambda probs, **_: int(np.argmax(probs))
    sys.modules.update({"config": config, "samplings": samplings})
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build(model_class: Any, vocab_size: int) -> Any:
    """Two towers as in the original's inference.py, no weight of which is zero or one, in numbers that fp16 can hold."""
    common = {"n_embd": DIM, "n_head": HEADS}
    patches = GPT2Config(n_layer=LAYERS[0], n_positions=SIZES["PATCH_LENGTH"], vocab_size=1, **common)
    inner = GPT2Config(n_layer=LAYERS[1], n_positions=SIZES["PATCH_SIZE"] + 1, vocab_size=vocab_size, **common)
    torch.manual_seed(7)
    model = model_class(patches, inner).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.12).copy_(parameter.half().float())
    return model


def next_logits(model: Any, inner: Any, ids: torch.Tensor) -> torch.Tensor:
    """The logits of the id that `generate` draws first."""
    seen: list[torch.Tensor] = []
    hook = inner.base.register_forward_hook(lambda module, given, output: seen.append(output.logits[0, -1]))
    with torch.no_grad():
        model.generate(ids[None, None])
    hook.remove()
    return seen[0]


def make(name: str, model_class: str, file: Path, inner_name: str, vocab_size: int, source: str) -> None:
    """Write one golden."""
    model = build(getattr(original(name, file), model_class), vocab_size)
    inner = getattr(model, inner_name)
    ids = np.random.default_rng(3).integers(3, min(vocab_size, 256), LENGTH)
    free = ids.copy()
    ids[10:12] = 0 if vocab_size == 128 else 256  # a patch filled up, as what comes after the end of a line
    rows = [next_logits(model, inner, torch.from_numpy(ids[: end + 1])) for end in range(SIZES["PATCH_SIZE"] - 1, LENGTH)]
    whole = torch.from_numpy(free[: LENGTH // 4 * 4])[None]
    with torch.no_grad():
        training = model(whole, torch.ones(1, LENGTH // 4, dtype=torch.long)).logits
    directory = HERE / f"{name}_tiny"
    directory.mkdir(exist_ok=True)
    tensors = {key: value.half().clone().contiguous() for key, value in model.state_dict().items()}
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    (directory / "model.safetensors").chmod(0o644)
    logits = torch.stack(rows).numpy().astype(np.float32)
    np.savez_compressed(
        directory / "io.npz",
        ids=ids[None],
        logits=logits[None],
        free_ids=free[None],
        training=training.numpy().astype(np.float32),
    )
    how = {
        "class": model_class,
        "heads": HEADS,
        "made_by": "tests/golden_families/make_patch_decoders.py",
        "source": source,
        "towers": "transformers 4.39.3 GPT2Model (patches) and GPT2LMHeadModel (inner), random weights rounded to fp16",
        "logits": "row i: the inner tower's logits of token i + 4 in the original's generate() on ids 0..i+3",
        "training": "the original's forward() on free_ids: [patch - 1, place, id], labels shifted by one place",
    }
    (directory / "config.json").write_text(json.dumps(how, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    notagen, bgpt = Path(sys.argv[1]), Path(sys.argv[2])
    make(
        "notagen",
        "NotaGenLMHeadModel",
        notagen / "inference/utils.py",
        "char_level_decoder",
        128,
        "github.com/ElectricAlexis/NotaGen 4553cd743b6b449732baf2a6cc58885fe853b11d inference/utils.py, MIT",
    )
    make(
        "bgpt",
        "bGPTLMHeadModel",
        bgpt / "utils.py",
        "byte_level_decoder",
        257,
        "github.com/sanderwood/bgpt 56b98d647b97c086bf9b3c0b840f0d662545e81c utils.py, MIT",
    )
