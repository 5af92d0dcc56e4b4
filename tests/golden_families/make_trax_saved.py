"""Makes the golden trax_saved with google/trax itself on random weights; run by hand, never by the tests.

    python make_trax_saved.py TRAX_CLONE

Needs jax 0.4.23, numpy 1, gin-config, absl-py and psutil, and a clone of github.com/google/trax (7c189c2). tensorflow and its
kin are replaced by stubs: the model needs none of them. The files are what trax writes: `model.pkl.gz` with
`model.weights.npy.gz` as its training loop does now, `before.pkl.gz` as that did earlier, and `saved.pkl.gz` by the model's
`save_to_file`.
"""

from __future__ import annotations

import importlib.machinery
import json
import os
import sys
import types
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np

OUT = Path(__file__).parent / "trax_saved"
STUBBED = {
    "gym",
    "mesh_tensorflow",
    "sentencepiece",
    "t5",
    "tensor2tensor",
    "tensorflow",
    "tensorflow_datasets",
    "tensorflow_text",
}
KWARGS = {"vocab_size": 23, "d_model": 8, "d_ff": 12, "vanilla_layers": (1, 0), "hierarchy": "1@2 1@6 1@2", "n_heads": 2}
RESAMPLING = {"attention_downsampling_fn": "LinearPooling", "attention_upsampling_fn": "LinearUpsampling"}
LENGTH = 36


class Stub(types.ModuleType):
    """Has any attribute."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        setattr(self, name, MagicMock(name=name))
        return self.__dict__[name]


class Stubs:
    """Finds a stub for every module of these packages."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> Any:
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if name.split(".")[0] in STUBBED else None

    def create_module(self, spec: Any) -> Stub:
        stub = Stub(spec.name)
        if spec.name == "tensorflow":  # classes that trax compares with, and its way to files
            stub.TensorShape, stub.DType = type("TensorShape", (), {}), type("DType", (), {})
            files = types.SimpleNamespace(
                GFile=open, exists=os.path.exists, rename=lambda old, new, overwrite: os.replace(old, new)
            )
            stub.io = types.SimpleNamespace(gfile=files)
        return stub

    def exec_module(self, module: Any) -> None:
        """Nothing to run."""


def main(clone: Path) -> None:
    """Write the golden."""
    sys.meta_path.insert(0, Stubs())
    sys.path.insert(0, str(clone))
    import trax.layers as tl
    from trax import shapes
    from trax.layers.research import resampling
    from trax.models.research.hourglass import HourglassLM
    from trax.supervised.history import History
    from trax.supervised.training import pickle_to_file

    OUT.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    ids = random.integers(0, KWARGS["vocab_size"], (2, LENGTH)).astype(np.int32)
    signature = shapes.signature(ids)
    model = HourglassLM(mode="eval", **KWARGS, **{key: getattr(resampling, name) for key, name in RESAMPLING.items()})
    model.init(signature)
    flat, state = tl.flatten_weights_and_state(model.weights, model.state)
    flat = [np.asarray(array) + 0.15 * random.standard_normal(array.shape).astype(np.float32) for array in flat]
    signatures = model.weights_and_state_signature(signature)
    model.weights, _ = tl.unflatten_weights_and_state(flat, state, signatures, weights_only=True)
    np.savez(OUT / "io.npz", ids=ids, logits=np.asarray(model(ids)))
    config = {"class": "HourglassLM", "context": LENGTH, "kwargs": {**KWARGS, **RESAMPLING}}
    (OUT / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    model.save_to_file(str(OUT / "saved.pkl.gz"), input_signature=signature)
    tl.np_to_file(flat, str(OUT / "model.weights.npy.gz"), compresslevel=2)
    history = History()
    history.append("eval", "metrics/accuracy", 1, np.float32(0.5))
    rest = {
        "step": 1,
        "flat_state": state,
        "flat_eval_state": state,
        "history": history.to_dict(),
        "input_signature": signature,
    }
    pickle_to_file({**rest, "flat_weights": 2, "slots_per_task": 2}, str(OUT / "model.pkl.gz"), gzip=True)
    pickle_to_file({**rest, "flat_weights": flat, "slots": [flat[0]]}, str(OUT / "before.pkl.gz"), gzip=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
