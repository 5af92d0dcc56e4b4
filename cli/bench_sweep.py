"""`foveal bench sweep BUNDLE... --context 128,1024`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Optional

import msgspec
import typer

from ..errors import ConfigError
from ..files import require_place, scratch_directory
from .conditions import require
from .console import give, out, progress
from .options import Calibration, Native, native_counts, threads_count
from .values import parse_counts

_STRIDE = "K"
"""What stands in a hierarchy for the stride that is varied."""


def sweep(
    context: typer.Context,
    bundles: Annotated[Optional[list[Path]], typer.Argument(help="Bundles to measure.")] = None,  # noqa: UP045
    contexts: Annotated[
        str, typer.Option("--context", help="Tokens behind which is decoded, separated by commas: 128,1024,8192.")
    ] = "256",
    batch: Annotated[str, typer.Option(help="Sequences that decode together, separated by commas.")] = "1",
    threads: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Of CPU engines, separated by commas; measured if not given."),
    ] = None,
    hierarchy: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help='Also models of random weights; may be repeated. K in it is varied by --stride: "2@1 8@K 2@1".'),
    ] = None,
    stride: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Strides in the place of K, separated by commas."),
    ] = None,
    precision: Annotated[str, typer.Option(help="Of the random models, separated by commas.")] = "fp32",
    calibration: Calibration = None,
    dim: Annotated[int, typer.Option(help="Width of the random models.")] = 512,
    heads: Annotated[int, typer.Option(help="Attention heads of the random models.")] = 8,
    ff_dim: Annotated[int, typer.Option(help="Feed-forward width of the random models.")] = 2048,
    vocab_size: Annotated[int, typer.Option(help="Vocabulary of the random models.")] = 256,
    policy: Annotated[str, typer.Option(help="Of batches: staggered or aligned.")] = "staggered",
    new_tokens: Annotated[int, typer.Option(help="Tokens to decode in each round, of each sequence.")] = 64,
    rounds: Annotated[int, typer.Option(help="Rounds that count; one more warms up.")] = 4,
    target: Annotated[str, typer.Option(help="Whose engines to run.")] = "cpu",
    provider: Annotated[Optional[str], typer.Option(help="What cuda engines run on; cpu where there is no GPU.")] = None,  # noqa: UP045
    native: Native = None,
    save: Annotated[Optional[Path], typer.Option(help="Write the result to this file.")] = None,  # noqa: UP045
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Measure decoding at every combination of contexts, batches, threads, strides and precisions, in rounds that alternate."""
    from ..bench.batch_rounds import checked_policies, tokens_until_in_phase
    from ..bench.names import require_different_names
    from ..bench.random_models import RandomModels
    from ..bench.show_sweep import show_sweep
    from ..bench.sweep import Axes
    from ..bench.sweep import sweep as run_sweep

    is_random = bool(hierarchy), "--hierarchy"
    precisions, lengths, batches = precision.split(","), parse_counts(contexts, "--context"), parse_counts(batch, "--batch")
    reads_text = bool(hierarchy) and any(asked != "fp32" for asked in precisions)
    require(
        context,
        {
            **dict.fromkeys(("dim", "heads", "ff_dim", "vocab_size", "precision"), is_random),
            "stride": (
                any(_STRIDE in one for one in hierarchy or ()),
                f"a --hierarchy with {_STRIDE} in the place of a stride",
            ),
            "calibration": (reads_text, "--hierarchy and a --precision other than fp32"),
            "threads": threads_count(target),
            "provider": (target == "cuda", "--target cuda"),
            "native": native_counts(target),
            "policy": (max(batches) > 1, "a --batch of at least 2"),
        },
    )
    (chosen,) = checked_policies([policy])
    axes = Axes(lengths, batches, [None] if threads is None else parse_counts(threads, "--threads"), chosen)
    hierarchies = _hierarchies(hierarchy or (), stride)
    if save is not None:
        require_place(save)
    command = shlex.join(["foveal", *sys.argv[1:]])
    require_different_names(bundles or ())  # before models of random weights are made
    with scratch_directory() as directory, progress("sweep") as report:
        until_in_phase = tokens_until_in_phase(hierarchies) if max(batches) > 1 else 0
        sizes = RandomModels(dim, heads, ff_dim, vocab_size, max(lengths) + new_tokens + until_in_phase)
        paths = list(bundles or ())
        if hierarchies:
            paths += sizes.convert(hierarchies, directory, report, precisions, calibration or ())
        if not paths:
            raise ConfigError("nothing to measure: name bundles, or give --hierarchy for models of random weights")
        result = run_sweep(
            paths,
            axes,
            new_tokens=new_tokens,
            rounds=rounds,
            target=target,
            provider=provider,
            native=native,
            command=command,
            on_progress=report,
        )
    give(msgspec.json.encode(result), save, json, lambda: show_sweep(result, out))


def _hierarchies(given: Sequence[str], stride: str | None) -> list[str]:
    """Each with each stride in the place of K.

    Raises:
        ConfigError: a hierarchy with a K and no strides.
    """
    if stride is None:
        for one in given:
            if _STRIDE in one:
                raise ConfigError(
                    f'--hierarchy "{one}" has {_STRIDE} for a stride, and --stride says none; give it: --stride 2,4,8'
                )
        return list(given)
    strides = parse_counts(stride, "--stride")
    return list(dict.fromkeys(one.replace(_STRIDE, str(count)) for one in given for count in strides))
