"""Makes the small goldens of dynamic pooling with the original code on random weights; run by hand, never by the tests.

    git clone https://github.com/PiotrNawrot/dynamic-pooling && git -C dynamic-pooling checkout 1e6f360
    python make_dynamic_pooling.py dynamic-pooling

`dynamic_pooling_tiny` was made likewise. The others are what the original's trainer writes, `checkpoint_last.pt`, by its own
`save_checkpoint`, with the boundaries of its own `boundary_creator`. `gumbel` has none: its logits differ from run to run.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).parent
TEXT = "the quick brown fox jumps over the lazy dog and runs away  from it all "
SIZES = {
    "n_head": 2,
    "d_model": 12,
    "d_head": 5,
    "d_inner": 16,
    "dropout": 0.1,
    "dropatt": 0.1,
    "pre_lnorm": False,
    "spikes_left": 2,
    "temp": 0.5,
    "prior": 0.2,
}
GOLDENS: dict[str, dict[str, Any]] = {
    "dynamic_pooling_whitespaces": {"model_config": "[1, (2,), 1]", "activation_function": "relu"},
    "dynamic_pooling_fixed": {"model_config": "[1, (1,) ,1]", "activation_function": "gelu"},
    "dynamic_pooling_unigram": {"model_config": "[2, (1,), 0]", "activation_function": "relu"},
    "dynamic_pooling_none": {"model_config": "[2, (0,), 0]", "activation_function": "gelu"},
}
BATCH, LENGTH = 3, 61


def build(original: Any, arguments: dict[str, Any], seed: int) -> torch.nn.Module:
    """A random model, disturbed so that no term vanishes."""
    torch.manual_seed(seed)
    model = original.MemTransformerLM(**arguments).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def balance(model: torch.nn.Module, ids: torch.Tensor) -> None:
    """Let three of ten tokens be boundaries."""
    predictor, seen = model.boundary_predictor.boundary_predictor, []
    hook = predictor.register_forward_hook(lambda module, inputs, output: seen.append(output))
    model(ids, None, None)
    hook.remove()
    predictor[2].bias.sub_(seen[0].quantile(0.7))


def make(name: str, arguments: dict[str, Any], seed: int) -> None:
    """Write one golden."""
    import hourglass
    from boundary_creator import BoundaryCreator
    from utils import exp_utils
    from utils.vocabulary import Vocab

    directory = HERE / name
    directory.mkdir(exist_ok=True)
    vocab = Vocab()
    vocab.counter.update(TEXT)
    vocab.build_vocab()
    kind = name.rpartition("_")[2]
    arguments = {"n_token": len(vocab), **SIZES, **arguments, "boundaries_type": kind}
    model = build(hourglass, arguments, seed)
    random = np.random.default_rng(seed)
    texts = ["".join(random.permutation(list(TEXT))[:LENGTH]) for _ in range(BATCH)]
    ids = torch.stack([vocab.convert_to_tensor(text) for text in texts], 1)  # the original is time-major
    creator = BoundaryCreator(kind, fixed_sf=4, whitespace_id=vocab.sym2idx[" "])
    boundaries = creator.get_boundaries(tensor=ids)
    with torch.no_grad():
        if model.is_bp:
            balance(model, ids)
        logits = model(ids, None, None if boundaries is None else boundaries.transpose(0, 1))
    np.savez_compressed(directory / "io.npz", ids=ids.T.numpy(), logits=logits.transpose(0, 1).numpy())
    args = argparse.Namespace(
        **arguments, fixed_sf=4, tgt_len=64, eval_total_len=96, eval_tgt_len=32, lr=1e-3, dataset="text8", n_all_param=1
    )
    nothing = types.SimpleNamespace(state_dict=dict)
    exp_utils.utils.distributed = types.SimpleNamespace(sync_workers=lambda: contextlib.nullcontext(0))
    exp_utils.save_checkpoint(args, model, arguments, nothing, nothing, vocab, 1, 2, None, 3, directory, nothing)


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.path.insert(0, sys.argv[1])
    sys.modules["sentencepiece"] = types.ModuleType("sentencepiece")  # it is for the boundaries of training only
    for seed, (name, arguments) in enumerate(GOLDENS.items()):
        make(name, arguments, seed)
