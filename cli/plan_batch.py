"""`foveal plan batch BUNDLE`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Optional

import msgspec
import typer

from ..bundle import open_bundle
from ..files import require_place
from .conditions import require
from .console import err, give, out, progress
from .options import Native, Threads
from .threads import pool_threads
from .values import parse_numbers

_FIRST = "times measured here, which --times replaces"


def plan_batch(
    context: typer.Context,
    bundle: Annotated[Path, typer.Argument(help="The model.")],
    slots: Annotated[str, typer.Option(help="Sequences at once; several numbers separated by commas.")] = "1,2,4,8,16,32,64",
    policy: Annotated[str, typer.Option(help="staggered, aligned, or both, separated by a comma.")] = "staggered,aligned",
    rate: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Also an open loop: Poisson arrivals, so many requests per second; several separated by commas."),
    ] = None,
    prompt_tokens: Annotated[int, typer.Option(help="Tokens of each prompt.")] = 256,
    new_tokens: Annotated[int, typer.Option(help="Tokens that each request wants.")] = 256,
    steps: Annotated[int, typer.Option(help="Steps that count, after --new-tokens steps of warm-up.")] = 2000,
    prefill_ms: Annotated[float, typer.Option(help="Most time for prompts between two steps, in milliseconds.")] = 20.0,
    seed: Annotated[int, typer.Option(help="Of the arrivals of --rate.")] = 0,
    up_to: Annotated[int, typer.Option(help="Measure calls for 1, 2, 4, ... and so many sequences.")] = 16,
    rounds: Annotated[int, typer.Option(help="Rounds of that measurement; one more warms up.")] = 3,
    text: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Decode this file in that measurement, instead of random ids and what the model finds likeliest."),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Also run the batch in a closed loop, of up to --up-to sequences.")
    ] = False,
    times: Annotated[Optional[Path], typer.Option(help="Take times from this file, as of another machine.")] = None,  # noqa: UP045
    save_times: Annotated[Optional[Path], typer.Option(help="Write the times that were measured to this file.")] = None,  # noqa: UP045
    threads: Threads = None,
    native: Native = None,
    save: Annotated[Optional[Path], typer.Option(help="Write the result to this file, as JSON.")] = None,  # noqa: UP045
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Forecast latencies and tokens per second of batches, from times of calls measured here or on another machine."""
    from ..bench.batch_forecast import Cases, forecast_batches
    from ..bench.batch_rounds import checked_policies
    from ..bench.batch_service import Requests
    from ..bench.decode import Load
    from ..bench.show_forecast import show_forecast
    from ..bench.stage_times import measure_stage_times, read_stage_times, require_line, save_stage_times
    from ..bench.text import read_text
    from ..runtime.model import load

    here = dict.fromkeys(("up_to", "rounds", "text", "threads", "native", "save_times", "measure"), (times is None, _FIRST))
    require(context, {**here, "seed": (rate is not None, "--rate")})
    for place in (save, save_times):
        if place is not None:
            require_place(place)
    rates = () if rate is None else parse_numbers(rate, float, "--rate")
    cases = Cases(parse_numbers(slots, int, "--slots"), checked_policies(policy.split(",")), rates, seed, prefill_ms / 1e3)
    requests, work = Requests(prompt_tokens, new_tokens, steps), Load(prompt_tokens, new_tokens, rounds)
    require_line(up_to)
    opened = open_bundle(bundle)
    requests.require_room(opened.manifest.model.context)
    stages = [entry.spec for entry in opened.manifest.stages]
    with progress("plan") as report:
        model = None
        if times is not None:
            taken = read_stage_times(times, opened)
        else:
            model = load(opened, "cpu", pool_threads(opened.path, "cpu", threads, native), native=native)
            work = work.reading(model, None if text is None else read_text(text))
            taken = measure_stage_times(model, work, up_to, report)
        if save_times is not None:
            save_stage_times(save_times, taken)
            err.print(f"wrote {save_times}")
        result = forecast_batches(
            stages,
            taken,
            cases,
            requests,
            context=opened.manifest.model.context,
            measured_with=model if measure else None,
            command=shlex.join(["foveal", *sys.argv[1:]]),
            on_progress=report,
        )
    give(msgspec.json.encode(result), save, json, lambda: show_forecast(result, out))
