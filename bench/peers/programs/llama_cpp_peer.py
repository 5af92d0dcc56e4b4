"""llama.cpp: a GGUF file of its `gpt2` architecture, whose GELU is the approximation by tanh, from a table in fp16."""

from __future__ import annotations

import ctypes
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from line_protocol import Decoder, Logits, run
from original_weights import Affine, Vanilla, read_vanilla

FILE_TYPES = {"Q8_0": 7, "Q4_0": 2}
"""Its numbers of file types (`llama_ftype`)."""
CHUNK = 512
"""Tokens of a call: `n_batch` as `llama_context_default_params` would have it for a prompt of this length."""


class LlamaCpp:
    """By its C API, as llama-cpp-python hands it on."""

    def versions(self) -> dict[str, str]:
        """llama-cpp-python's, which brings llama.cpp along."""
        return {"llama-cpp-python": version("llama-cpp-python")}

    def prepare(self, original: Path, out: Path, precision: str) -> None:
        """A GGUF file in fp32, or what llama.cpp's own quantiser makes of it."""
        full = out / "fp32.gguf"
        write_gguf(read_vanilla(original), full)
        if precision != "fp32":
            quantise(full, out / f"{precision}.gguf", FILE_TYPES[precision])
            full.unlink()

    def load(self, path: Path, threads: int, sequences: int, capacity: int) -> Decoder:
        """The one file that `prepare` left."""
        (file,) = path.glob("*.gguf")
        return Context(file, threads, sequences, capacity)


class Context:
    """A model and its memory."""

    def __init__(self, path: Path, threads: int, sequences: int, capacity: int) -> None:
        import llama_cpp as library

        self.library, self.position = library, 0
        self.model = library.llama_model_load_from_file(str(path).encode(), library.llama_model_default_params())
        self.vocab_size = library.llama_vocab_n_tokens(library.llama_model_get_vocab(self.model))
        settings = library.llama_context_default_params()
        settings.n_ctx, settings.n_seq_max = sequences * capacity, sequences
        settings.n_batch = settings.n_ubatch = CHUNK
        settings.n_threads = settings.n_threads_batch = threads
        self.context = library.llama_init_from_model(self.model, settings)
        self.batch = library.llama_batch_init(CHUNK, 0, 1)

    def reset(self) -> None:
        """Clear the memory."""
        self.library.llama_memory_clear(self.library.llama_get_memory(self.context), True)
        self.position = 0

    def append(self, tokens: npt.NDArray[np.int64]) -> Logits:
        """As many sequences in a call as it holds tokens."""
        count, length = tokens.shape
        if length > CHUNK:
            raise ValueError(f"expected at most {CHUNK} tokens in a call, got {length}")
        each = CHUNK // length
        parts = [self._decode(tokens[first : first + each], first) for first in range(0, count, each)]
        self.position += length
        return np.concatenate(parts)

    def _decode(self, tokens: npt.NDArray[np.int64], first: int) -> Logits:
        """Of sequences from `first` on: logits `[n, V]` after the last token of each."""
        batch, length = self.batch, tokens.shape[1]
        batch.n_tokens = tokens.size
        for index, token in enumerate(tokens.reshape(-1).tolist()):
            sequence, place = divmod(index, length)
            batch.token[index], batch.pos[index] = token, self.position + place
            batch.n_seq_id[index], batch.seq_id[index][0] = 1, first + sequence
            batch.logits[index] = place == length - 1
        if self.library.llama_decode(self.context, batch):
            raise RuntimeError("llama_decode failed")
        rows = [self.library.llama_get_logits_ith(self.context, (row + 1) * length - 1) for row in range(len(tokens))]
        return np.stack([np.ctypeslib.as_array(row, (self.vocab_size,)) for row in rows])


def write_gguf(vanilla: Vanilla, path: Path) -> None:
    """The model in fp32."""
    import gguf

    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_block_count(len(vanilla.layers))
    writer.add_context_length(len(vanilla.positions))
    writer.add_embedding_length(vanilla.dim)
    writer.add_feed_forward_length(len(vanilla.layers[0].up.bias))
    writer.add_head_count(vanilla.heads)
    writer.add_layer_norm_eps(vanilla.epsilon)
    writer.add_vocab_size(len(vanilla.tokens))
    writer.add_tokenizer_model("no_vocab")
    for name, tensor in _tensors(vanilla).items():
        writer.add_tensor(name, np.ascontiguousarray(tensor, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _tensors(vanilla: Vanilla) -> dict[str, npt.NDArray[np.float32]]:
    """By llama.cpp's names."""
    found = {"token_embd.weight": vanilla.tokens, "position_embd.weight": vanilla.positions, "output.weight": vanilla.tokens}
    affine: dict[str, Affine] = {"output_norm": vanilla.norm}
    for index, layer in enumerate(vanilla.layers):
        found[f"blk.{index}.attn_qkv.weight"] = layer.qkv
        found[f"blk.{index}.attn_qkv.bias"] = np.zeros(len(layer.qkv), np.float32)
        parts = {"attn_norm": layer.norm, "attn_output": layer.out, "ffn_norm": layer.second_norm}
        parts |= {"ffn_up": layer.up, "ffn_down": layer.down}
        affine |= {f"blk.{index}.{name}": part for name, part in parts.items()}
    for name, part in affine.items():
        found |= {f"{name}.weight": part.weight, f"{name}.bias": part.bias}
    return found


def quantise(source: Path, target: Path, file_type: int) -> None:
    """By llama.cpp's own quantiser."""
    import llama_cpp as library

    settings: Any = library.llama_model_quantize_default_params()
    settings.ftype = file_type
    if library.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(settings)):
        raise RuntimeError(f"llama.cpp could not quantise {source}")


if __name__ == "__main__":
    run(LlamaCpp())
