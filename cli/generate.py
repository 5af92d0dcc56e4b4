"""`foveal generate BUNDLE PROMPT`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from .console import out
from .threads import pool_threads


def generate(
    bundle: Annotated[Path, typer.Argument(help="The bundle to run.")],
    prompt: Annotated[str, typer.Argument(help="Text to continue.")],
    max_new_tokens: Annotated[int, typer.Option(help="Stop after so many tokens.")] = 128,
    temperature: Annotated[float, typer.Option(help="0: always the likeliest token.")] = 0.8,
    top_k: Annotated[int, typer.Option(help="Keep the k likeliest tokens; 0: all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Keep the likeliest tokens of this total probability.")] = 1.0,
    min_p: Annotated[float, typer.Option(help="Drop tokens below this share of the likeliest one's probability.")] = 0.0,
    repetition_penalty: Annotated[float, typer.Option(help="Above 1: make seen tokens less likely.")] = 1.0,
    seed: Annotated[Optional[int], typer.Option(help="The same seed gives the same text.")] = None,  # noqa: UP045
    stop: Annotated[Optional[list[str]], typer.Option(help="End before this text; may be repeated.")] = None,  # noqa: UP045
    target: Annotated[str, typer.Option(help="Whose engines to run.")] = "cpu",
    threads: Annotated[Optional[int], typer.Option(help="Engine threads; measured if not given.")] = None,  # noqa: UP045
) -> None:
    """Continue a text, printing it as it is written."""
    from .. import load

    model = load(bundle, target, pool_threads(bundle, target, threads))
    pieces = model.generate(
        prompt,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
        stop=stop or (),
    )
    out.print(prompt, end="", markup=False)
    for piece in pieces:
        out.print(piece, end="", markup=False)
        out.file.flush()
    out.print()
