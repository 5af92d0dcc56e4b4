"""`foveal bench speculation BUNDLE`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Optional

import msgspec
import typer

from ..errors import ConfigError
from .conditions import require
from .console import out, print_json, progress
from .options import Native, Threads, native_counts, threads_count
from .threads import pool_threads


def speculation(
    context: typer.Context,
    bundle: Annotated[Path, typer.Argument(help="The bundle whose texts are drafted.")],
    draft: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help='"ngrams" (if not given), or a bundle of a smaller model with the same tokenizer.'),
    ] = None,
    temperature: Annotated[
        Optional[list[float]],  # noqa: UP045
        typer.Option(help="To draw at; 0 (greedy) and 0.6 if not given."),
    ] = None,
    prompts: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            help="A folder of prompts KIND-NUMBER.txt; tunes, source code and novels that come with foveal if not given."
        ),
    ] = None,
    new_tokens: Annotated[int, typer.Option(min=2, help="The most of a text, which ends where the context does.")] = 512,
    rounds: Annotated[int, typer.Option(min=1, help="Of all texts, drafted and not in turn.")] = 5,
    target: Annotated[str, typer.Option(help="Whose engines to run.")] = "cpu",
    threads: Threads = None,
    native: Native = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Measure what drafts gain: tokens per second with and without them, and how many of them come.

    The text is the same with drafts and without; how much sooner it is there depends on how much it repeats itself.
    """
    from .. import load
    from ..bench.speculation.measure import PROMPTS, measure, prompts_of
    from ..bench.speculation.show import show

    require(context, {"threads": threads_count(target), "native": native_counts(target)})
    if any(not 0 <= one < float("inf") for one in temperature or ()):
        raise ConfigError(f"--temperature is {temperature}, expected numbers of at least 0")
    texts = prompts_of(PROMPTS if prompts is None else prompts)
    model = load(bundle, target, pool_threads(bundle, target, threads, native), native=native)
    with progress("speculation") as report:
        result = measure(
            model,
            texts,
            draft or ["ngrams"],
            [0.0, 0.6] if temperature is None else temperature,
            new_tokens,
            rounds,
            shlex.join(["foveal", *sys.argv[1:]]),
            report,
        )
    if json:
        print_json(msgspec.json.encode(result))
    else:
        show(result, out)
