"""Many sequences at once beside llama.cpp: the same vanilla model in both, on as many threads, in turn.

    pip install llama-cpp-python==0.3.36 gguf        # compiles llama.cpp; not among foveal's dependencies
    python -m foveal.bench.llama_cpp DIRECTORY --slots 16 --save F

Random weights at the Hourglass paper's sizes go into bundles (`12@1` and `2@1 8@4 2@1`) and, the vanilla ones, into a GGUF file
of llama.cpp's `gpt2` architecture, whose logits are compared with foveal's before anything is timed. All decode greedily; a
round of each system in turn, after one that is not counted.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from ..errors import ConfigError
from ..runtime.model import load
from .environment import read_environment
from .random_models import RandomModels
from .script import run_script

SIZES = RandomModels(dim=512, heads=8, ff_dim=2048, vocab_size=256, context=1024)
VANILLA, HOURGLASS, LAYERS = "12@1", "2@1 8@4 2@1", 12
FORMATS = {"Q8_0": 7, "Q4_0": 2}
"""llama.cpp's names and numbers of file types (`llama_ftype`)."""
CLOSE = 0.05
"""Of the spread of the logits: GELU by tanh, which llama.cpp's gpt2 has, and fp32 otherwise."""


def write_gguf(path: Path) -> None:
    """The vanilla model as llama.cpp reads it."""
    import gguf

    weights = {name: tensor.detach().numpy() for name, tensor in SIZES.build(VANILLA).state_dict().items()}
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_block_count(LAYERS)
    writer.add_context_length(SIZES.context)
    writer.add_embedding_length(SIZES.dim)
    writer.add_feed_forward_length(SIZES.ff_dim)
    writer.add_head_count(SIZES.heads)
    writer.add_layer_norm_eps(1e-5)
    writer.add_vocab_size(SIZES.vocab_size)
    writer.add_tokenizer_model("no_vocab")
    for name, tensor in _renamed(weights):
        writer.add_tensor(name, np.ascontiguousarray(tensor, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _renamed(weights: dict[str, npt.NDArray[np.float32]]) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    yield "token_embd.weight", weights["embed.tokens.weight"]
    yield "position_embd.weight", weights["embed.positions.weight"]
    for layer in range(LAYERS):
        ours, theirs = f"root.layers.{layer}", f"blk.{layer}"
        yield f"{theirs}.attn_qkv.weight", weights[f"{ours}.attention.qkv.weight"]
        yield f"{theirs}.attn_qkv.bias", np.zeros(3 * SIZES.dim, np.float32)
        for part, name in (("weight", "weight"), ("bias", "bias")):
            yield f"{theirs}.attn_norm.{part}", weights[f"{ours}.norm.{name}"]
            yield f"{theirs}.attn_output.{part}", weights[f"{ours}.attention.out.{name}"]
            yield f"{theirs}.ffn_norm.{part}", weights[f"{ours}.feed_forward.norm.{name}"]
            yield f"{theirs}.ffn_up.{part}", weights[f"{ours}.feed_forward.up.{name}"]
            yield f"{theirs}.ffn_down.{part}", weights[f"{ours}.feed_forward.down.{name}"]
    yield "output_norm.weight", weights["head.norm.weight"]
    yield "output_norm.bias", weights["head.norm.bias"]
    yield "output.weight", weights["head.logits.weight"]


class LlamaCpp:
    """A GGUF file, and memory for so many sequences."""

    def __init__(self, path: Path, slots: int, tokens: int, threads: int) -> None:
        import llama_cpp as library

        self.library, self.slots = library, slots
        self.model = library.llama_model_load_from_file(str(path).encode(), library.llama_model_default_params())
        settings = library.llama_context_default_params()
        settings.n_ctx, settings.n_batch, settings.n_ubatch, settings.n_seq_max = slots * tokens, 512, 512, slots
        settings.n_threads = settings.n_threads_batch = threads
        self.context = library.llama_init_from_model(self.model, settings)
        self.batch = library.llama_batch_init(512, 0, 1)

    def forget(self) -> None:
        """Start again."""
        self.library.llama_memory_clear(self.library.llama_get_memory(self.context), True)

    def decode(self, tokens: npt.NDArray[np.int64], position: int, sequences: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Append `tokens` `[n, L]` to sequences; logits `[n, V]` after the last of each."""
        batch, length = self.batch, tokens.shape[1]
        batch.n_tokens = tokens.size
        for index, token in enumerate(tokens.reshape(-1).tolist()):
            sequence, place = divmod(index, length)
            batch.token[index], batch.pos[index] = token, position + place
            batch.n_seq_id[index], batch.seq_id[index][0] = 1, int(sequences[sequence])
            batch.logits[index] = place == length - 1
        if self.library.llama_decode(self.context, batch):
            raise RuntimeError("llama_decode failed")
        rows = [self.library.llama_get_logits_ith(self.context, (row + 1) * length - 1) for row in range(len(tokens))]
        return np.stack([np.ctypeslib.as_array(row, (SIZES.vocab_size,)) for row in rows])

    def round(self, prompts: npt.NDArray[np.int64], steps: int) -> list[float]:
        """Seconds of each step, once all prompts are appended."""
        self.forget()
        every = np.arange(self.slots)
        logits = np.concatenate([self.decode(prompts[b : b + 1], 0, every[b : b + 1]) for b in every])
        seconds = []
        for step in range(steps):
            began = time.perf_counter()
            logits = self.decode(logits.argmax(-1)[:, None], prompts.shape[1] + step, every)
            seconds.append(time.perf_counter() - began)
        return seconds


def quantise(source: Path, target: Path, file_type: int) -> None:
    """By llama.cpp's own quantiser."""
    import llama_cpp as library

    settings = library.llama_model_quantize_default_params()
    settings.ftype = file_type
    if library.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(settings)):
        raise RuntimeError(f"llama.cpp could not quantise {source}")


def foveal_round(bundle: Path, slots: int, threads: int, capacity: int) -> Callable[[npt.NDArray[np.int64], int], list[float]]:
    """As `LlamaCpp.round`, in a batch: all prompts before the first token, in the phase that prompts of one length have."""
    batch = load(bundle, threads=threads).batch(slots, capacity, "aligned", prefill_seconds=60)

    def go(prompts: npt.NDArray[np.int64], steps: int) -> list[float]:
        for sequence in batch.sequences:
            batch.leave(sequence)
        for prompt in prompts:
            batch.join(prompt)
        logits = batch.step()
        while len(logits) < slots:
            logits = batch.step({sequence: int(row.argmax()) for sequence, row in logits.items()})
        seconds = []
        for _ in range(steps):
            began = time.perf_counter()
            logits = batch.step({sequence: int(row.argmax()) for sequence, row in logits.items()})
            seconds.append(time.perf_counter() - began)
        return seconds

    return go


def check_same_model(path: Path, bundle: Path) -> float:
    """The largest difference of logits, as a share of their spread; raises where it is more than `CLOSE`."""
    ids = np.random.default_rng(1).integers(0, SIZES.vocab_size, (1, 48))
    theirs = LlamaCpp(path, 1, 64, 1).decode(ids, 0, np.zeros(1, np.int64))[0]
    ours = load(bundle, threads=1).session(capacity=64).advance(ids, last_only=True)[0, 0]
    error = float(np.abs(theirs - ours).max() / ours.std())
    if error > CLOSE:
        raise RuntimeError(f"llama.cpp computes another model: logits differ by {error:.3f} of their spread, expected {CLOSE}")
    return error


def make(directory: Path, text: Path) -> None:
    """Bundles and GGUF files that are not there yet."""
    directory.mkdir(parents=True, exist_ok=True)
    for hierarchy in (VANILLA, HOURGLASS):
        if not (directory / f"{hierarchy} w4").exists():
            SIZES.convert([hierarchy], directory, lambda *_: None, ("fp32", "int8", "w8", "w4"), [text])
    full = directory / "vanilla.gguf"
    if not full.exists():
        write_gguf(full)
    for name, number in FORMATS.items():
        if not (directory / f"vanilla {name}.gguf").exists():
            quantise(full, directory / f"vanilla {name}.gguf", number)


@contextmanager
def quiet() -> Iterator[None]:
    """Without llama.cpp's log.

    Raises:
        ConfigError: llama-cpp-python or gguf is not installed.
    """
    try:
        import gguf  # noqa: F401
        import llama_cpp as library
    except ImportError as error:
        raise ConfigError(
            f"{error}; install both: pip install llama-cpp-python==0.3.36 gguf (it compiles llama.cpp)"
        ) from error

    silent = library.llama_log_callback(lambda *_: None)
    library.llama_log_set(silent, ctypes.c_void_p())
    yield


def main() -> None:
    """Measure, print a table and save the samples."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--text", type=Path, default=Path(__file__).parents[1] / "models/checkpoints/text/calibration.txt")
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--save", type=Path)
    given = parser.parse_args()
    with quiet():
        make(given.directory, given.text)
        error = check_same_model(given.directory / "vanilla.gguf", given.directory / VANILLA)
        capacity = given.prompt_tokens + given.new_tokens + 8
        systems: dict[str, Callable[[npt.NDArray[np.int64], int], list[float]]] = {
            f"llama.cpp {name}": LlamaCpp(given.directory / f"vanilla {name}.gguf", given.slots, capacity, given.threads).round
            for name in FORMATS
        }
        for hierarchy in (VANILLA, HOURGLASS):
            for precision in ("int8", "w8", "w4"):
                path = given.directory / f"{hierarchy} {precision}"
                systems[f"foveal {hierarchy} {precision}"] = foveal_round(path, given.slots, given.threads, capacity)
        prompts = np.random.default_rng(0).integers(0, SIZES.vocab_size, (given.slots, given.prompt_tokens))
        samples: dict[str, list[list[float]]] = {name: [] for name in systems}
        for number in range(given.rounds + 1):
            for name, go in systems.items():
                seconds = go(prompts, given.new_tokens)
                if number:
                    samples[name].append(seconds)
    print(f"{given.slots} sequences behind {given.prompt_tokens} tokens, {given.threads} threads; logits differ by {error:.1e}")
    rates = {name: given.slots / np.median([np.mean(seconds) for seconds in rounds]) for name, rounds in samples.items()}
    for name, rate in rates.items():
        peer = rates["llama.cpp Q4_0" if name.endswith("w4") else "llama.cpp Q8_0"]
        print(f"| {name} | {rate:,.0f} tokens/s | {rate / peer:.2f} |")
    if given.save:
        found: dict[str, Any] = {"settings": {key: str(value) for key, value in vars(given).items()}, "seconds": samples}
        given.save.write_text(json.dumps({**found, "environment": msgspec.to_builtins(read_environment())}))


if __name__ == "__main__":
    run_script(main)
