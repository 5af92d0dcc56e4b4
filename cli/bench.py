"""`foveal bench BUNDLE...`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Optional

import msgspec
import typer

from ..errors import ConfigError
from ..files import require_place, scratch_directory
from .conditions import require
from .console import err, give, out, progress
from .options import Calibration, Native, Threads, native_counts, threads_count
from .threads import pool_threads


def bench(
    context: typer.Context,
    bundles: Annotated[Optional[list[Path]], typer.Argument(help="Bundles to measure side by side.")] = None,  # noqa: UP045
    hierarchy: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Also measure a model of random weights; may be repeated."),
    ] = None,
    dim: Annotated[int, typer.Option(help="Width of the random models.")] = 512,
    heads: Annotated[int, typer.Option(help="Attention heads of the random models.")] = 8,
    ff_dim: Annotated[int, typer.Option(help="Feed-forward width of the random models.")] = 2048,
    vocab_size: Annotated[int, typer.Option(help="Vocabulary of the random models.")] = 256,
    precision: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Of the random models, fp32 if not given; may be repeated."),
    ] = None,
    calibration: Calibration = None,
    eager: Annotated[
        bool, typer.Option(help="Also decode the random models with PyTorch's own caches, on as many threads.")
    ] = False,
    text: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Read and go on with this file, instead of random ids and what each model finds likeliest."),
    ] = None,
    prompt_tokens: Annotated[int, typer.Option(help="Tokens of the prompt.")] = 256,
    new_tokens: Annotated[int, typer.Option(help="Tokens to decode in each round.")] = 256,
    rounds: Annotated[int, typer.Option(help="Rounds that count; one more warms up.")] = 4,
    batch: Annotated[int, typer.Option(help="Also decode so many sequences together, each at a position of its own.")] = 1,
    policy: Annotated[
        str, typer.Option(help="Of the batch: staggered, aligned, or both, separated by a comma.")
    ] = "staggered,aligned",
    target: Annotated[str, typer.Option(help="Whose engines to run.")] = "cpu",
    provider: Annotated[Optional[str], typer.Option(help="What cuda engines run on; cpu where there is no GPU.")] = None,  # noqa: UP045
    power: Annotated[
        bool,
        typer.Option("--power", help="Also measure power, for 11 s per model after the rounds, and the energy of a token."),
    ] = False,
    threads: Threads = None,
    native: Native = None,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare",
            help="Also give each model in times of the first, with confidence intervals, by rounds that took turns.",
        ),
    ] = False,
    samples: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Write raw samples to this file: a JSON line for each token (docs/bench-results.md)."),
    ] = None,
    save: Annotated[Optional[Path], typer.Option(help="Write the result, raw samples included, to this file.")] = None,  # noqa: UP045
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Measure latency, memory and the share of memory bandwidth that decoding reaches; exit code 5 if a figure is missing."""
    from ..bench.batch_rounds import BatchLoad, checked_policies, tokens_until_in_phase
    from ..bench.comparison import require_comparable
    from ..bench.decode import Load
    from ..bench.names import require_different_names
    from ..bench.power.find import find_sensor
    from ..bench.random_models import RandomModels
    from ..bench.run import bench as run_bench
    from ..bench.samples import save_samples
    from ..bench.show import show
    from ..bench.text import read_text

    is_random = bool(hierarchy), "--hierarchy"
    random_only = dict.fromkeys(("dim", "heads", "ff_dim", "vocab_size", "precision", "eager"), is_random)
    reads_text = bool(hierarchy) and any(asked != "fp32" for asked in precision or ())
    text_only = {"calibration": (reads_text, "--hierarchy and a --precision other than fp32")}
    on_device = {"provider": (target == "cuda", "--target cuda"), "threads": threads_count(target)}
    on_device["native"] = native_counts(target)
    in_batch = {"policy": (batch > 1, "--batch of at least 2")}
    require(context, {**random_only, **text_only, **on_device, **in_batch})
    together = None if batch == 1 else BatchLoad(batch, checked_policies(policy.split(",")))
    for path in (save, samples):
        if path is not None:
            require_place(path)
    if compare:
        reference = 2 if eager else 1
        require_comparable(len(bundles or ()) + len(hierarchy or ()) * (len(precision or ("fp32",)) - 1 + reference), rounds)
    work = Load(prompt_tokens, new_tokens, rounds)
    sensor = find_sensor(target=target) if power else None
    command = shlex.join(["foveal", *sys.argv[1:]])
    require_different_names(bundles or ())  # before models of random weights are made
    with scratch_directory() as directory, progress("bench") as report:
        until_in_phase = 0 if together is None else tokens_until_in_phase(hierarchy or ())
        sizes = RandomModels(dim, heads, ff_dim, vocab_size, prompt_tokens + new_tokens + until_in_phase)
        paths = list(bundles or ())
        if hierarchy:
            paths += sizes.convert(hierarchy, directory, report, precision or ("fp32",), calibration or ())
        if not paths:
            raise ConfigError("nothing to measure: name bundles, or give --hierarchy for models of random weights")
        result = run_bench(
            paths,
            work,
            target=target,
            provider=provider,
            threads=pool_threads(paths[0], target, threads, native),
            native=native,
            eager=sizes.eager(hierarchy or ()) if eager else (),
            power=sensor,
            batch=together,
            text=None if text is None else read_text(text),
            comparing=compare,
            command=command,
            on_progress=report,
        )
    if samples is not None:
        save_samples(samples, result)
        err.print(f"wrote {samples}")
    give(msgspec.json.encode(result), save, json, lambda: show(result, out))
    if result.status == "incomplete":
        raise typer.Exit(5)
