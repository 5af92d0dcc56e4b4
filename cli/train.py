"""`foveal train OUT --text FILE...`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from ..hierarchy import Hierarchy
from ..models.config import Architecture, ModelConfig, Positions, Shortening, Upsampling, head_dim_of, one_of
from .conditions import require
from .console import err, out, progress


def train(
    context: typer.Context,
    directory: Annotated[Path, typer.Argument(help="Where the checkpoint goes; a run that is there is resumed.")],
    text: Annotated[list[Path], typer.Option(help="Training text: files, or directories of *.txt.")],
    valid: Annotated[list[Path], typer.Option(help="Validation text.")],
    architecture: Annotated[
        str, typer.Option(help='"hourglass", "top-down", "bottom-up", "retina" or "dynamic".')
    ] = "hourglass",
    hierarchy: Annotated[
        str, typer.Option(help='For instance "2@1 8@4 2@1", "6@1", or of a dynamic model "1@1 6@~5 1@1".')
    ] = "2@1 2@4 3@16 2@4 2@1",
    dim: Annotated[int, typer.Option(help="Width.")] = 192,
    heads: Annotated[int, typer.Option(help="Attention heads.")] = 6,
    ff_dim: Annotated[Optional[int], typer.Option(help="Feed-forward width; 4 x dim if not given.")] = None,  # noqa: UP045
    vocab_size: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Tokens of the byte-level BPE; 4096 if not given, or 256 of bytes."),
    ] = None,
    tokenizer: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help='A tokenizer.json, or "bytes": those of UTF-8 are the tokens. Trained if not given.'),
    ] = None,
    positions: Annotated[str, typer.Option(help='"learned" or "rotary".')] = "learned",
    shortening: Annotated[str, typer.Option(help='"average", "linear", "attention" or "linear+attention".')] = "average",
    upsampling: Annotated[str, typer.Option(help='"repeat", "linear", "attention" or "linear+attention".')] = "repeat",
    length: Annotated[int, typer.Option("--context", help="Tokens per sequence.")] = 512,
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 3600,
    batch: Annotated[int, typer.Option(help="Sequences per step.")] = 4,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 1.5e-3,
    cooldown: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Let the learning rate stay until this share of the steps is left; a cosine if not given."),
    ] = None,
    bf16: Annotated[bool, typer.Option("--bf16", help="Compute in bf16: for CPUs with AVX512-BF16 or AMX.")] = False,
    eval_every: Annotated[int, typer.Option(help="Steps between evaluations and saved states.")] = 250,
    seed: Annotated[int, typer.Option(help="Of the initial weights and the order of the data.")] = 0,
    minutes: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Stop after so many minutes, if there are steps left; the same command goes on."),
    ] = None,
    threads: Annotated[Optional[int], typer.Option(help="PyTorch threads.")] = None,  # noqa: UP045
) -> None:
    """Train a small model on text; run the same command again to go on where it stopped."""
    from ..models.train import Trainer, TrainSettings, tokenizer_for, use_threads
    from ..runtime.engines.onnxruntime_library import require_threads

    resamples = not Hierarchy.parse(hierarchy).is_vanilla, "a --hierarchy with a coarse scale"
    require(context, dict.fromkeys(("shortening", "upsampling"), resamples))
    err.print(f"train: reading {', '.join(map(str, text))}")
    tokens = (256 if tokenizer == "bytes" else 4096) if vocab_size is None else vocab_size
    config = ModelConfig(
        architecture=one_of(Architecture, architecture, "architecture"),
        hierarchy=hierarchy,
        vocab_size=tokens,
        dim=dim,
        heads=heads,
        head_dim=head_dim_of(dim, heads),
        ff_dim=4 * dim if ff_dim is None else ff_dim,
        max_positions=length,
        positions=one_of(Positions, positions, "positions"),
        shortening=one_of(Shortening, shortening, "shortening"),
        upsampling=one_of(Upsampling, upsampling, "upsampling"),
    )
    settings = TrainSettings(
        steps=steps,
        batch=batch,
        context=length,
        learning_rate=learning_rate,
        eval_every=eval_every,
        seed=seed,
        bf16=bf16,
        cooldown=cooldown,
    )
    if threads is not None:
        require_threads(threads)
    use_threads(threads)
    trainer = Trainer(config, settings, tokenizer_for(text, tokens, tokenizer), text, valid, directory)
    with progress("train") as report:
        result = trainer.run(lambda step, loss: report(f"loss {loss:.3f}", step, steps), minutes)
    last = result.curve[-1]
    out.print(f"{directory}: {result.parameters:,} parameters, {last.tokens:,} tokens in {last.seconds:,.0f} s")
    out.print(f"validation: {last.valid_loss_nats:.4f} nats per token, {last.valid_bits_per_byte:.4f} bits per byte")
