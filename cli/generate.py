"""`foveal generate BUNDLE PROMPT`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from ..errors import ConfigError
from ..runtime.ids import ID_FILES, parse_ids, read_id_file
from ..runtime.sampling import SamplingParams
from .conditions import require
from .console import err, write
from .on_ray import Address, OnRay
from .options import Threads, threads_count
from .prompt_files import (
    OF_ACTORS,
    OF_FILES,
    ActorCount,
    Capacity,
    CpusPerActor,
    Files,
    GpusPerActor,
    Out,
    PartLines,
    Scored,
    Slots,
    Spread,
    generate_files,
    one_prompt,
)
from .threads import pool_threads

if TYPE_CHECKING:
    import numpy.typing as npt

    from ..runtime.generation.continuation import FinishReason
    from ..runtime.model import Model

    Ends = list[int | str]


def generate(
    context: typer.Context,
    bundle: Annotated[Path, typer.Argument(help="The bundle to run.")],
    prompts: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(metavar="[PROMPT | FILE...]", help="Text to continue; with --files or --ray, files of prompts."),
    ] = None,
    ids: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help='Or ids to continue: "17 4 99", or a file that ends in .npy, .bin or .ids.'),
    ] = None,
    output: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help='"text" or "ids"; if not given, text where the model has a tokenizer and the prompt is text.'),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Stop after so many tokens.")] = SamplingParams.max_new_tokens,
    temperature: Annotated[
        float, typer.Option(help="0: always the likeliest token, whatever --top-k, --top-p, --min-p and --seed say.")
    ] = SamplingParams.temperature,
    top_k: Annotated[
        int, typer.Option(help="Keep the k likeliest tokens; 0: all, 1: as --temperature 0.")
    ] = SamplingParams.top_k,
    top_p: Annotated[float, typer.Option(help="Keep the likeliest tokens of this total probability.")] = SamplingParams.top_p,
    min_p: Annotated[
        float, typer.Option(help="Drop tokens below this share of the likeliest one's probability.")
    ] = SamplingParams.min_p,
    repetition_penalty: Annotated[
        float, typer.Option(help="Above 1: make seen tokens less likely.")
    ] = SamplingParams.repetition_penalty,
    seed: Annotated[Optional[int], typer.Option(help="The same seed gives the same text.")] = None,  # noqa: UP045
    stop: Annotated[Optional[list[str]], typer.Option(help="End before this text; may be repeated.")] = None,  # noqa: UP045
    end: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="End before this token, an id or as the tokenizer writes it, such as </s>; may be repeated."),
    ] = None,
    target: Annotated[str, typer.Option(help="Whose engines to run.")] = "cpu",
    threads: Threads = None,
    files: Files = False,
    out: Out = None,
    scored: Scored = False,
    slots: Slots = 16,
    capacity: Capacity = None,
    part_lines: PartLines = 256,
    on_ray: OnRay = False,
    actors: ActorCount = 1,
    cpus_per_actor: CpusPerActor = 0.5,
    gpus_per_actor: GpusPerActor = 0.0,
    address: Address = None,
) -> None:
    """Continue a text or ids: the prompt and what comes are printed as they come; stderr says why it ended.

    With --files or --ray: continue, or score, every line of files; the outputs are JSON lines in the folder --out.
    """
    from .. import load

    takes_files = files or on_ray
    require(
        context,
        {
            "threads": threads_count(target),
            "ids": (not takes_files, "no --files and no --ray: files hold the prompts"),
            **dict.fromkeys(OF_FILES, (takes_files, "--files, or --ray")),
            **dict.fromkeys(OF_ACTORS, (on_ray, "--ray")),
            **dict.fromkeys((*_SETTINGS, "output"), (not scored, "no --eval, which draws nothing")),
        },
    )
    _check_output(output)
    settings: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "seed": seed,
        "stop": tuple(stop or ()),
    }
    params = SamplingParams(**settings)  # before the model is loaded, which takes longer
    ends = [int(token) if token.isdecimal() else token for token in end or ()]
    if takes_files:
        generate_files(
            bundle,
            prompts,
            out,
            {**settings, "end": ends},
            scored=scored,
            output=output,
            target=target,
            threads=threads,
            slots=slots,
            capacity=capacity,
            part_lines=part_lines,
            spread=Spread(on_ray, actors, cpus_per_actor, gpus_per_actor, address),
        )
        return
    prompt = one_prompt(prompts)
    as_ids = _wants_ids(prompt, ids, output)
    given = prompt if prompt is not None else _ids(ids or "")
    model = load(bundle, target, pool_threads(bundle, target, threads))
    if model.tokenizer is None and (isinstance(given, str) or not as_ids):
        raise ConfigError(
            f'{bundle} has no tokenizer, so it takes ids only: --ids "17 4 99", or --ids FILE; for text convert the checkpoint '
            "again with --tokenizer FILE, or --tokenizer bytes if its ids are bytes"
        )
    found = _write_ids(model, given, params, ends) if as_ids else _write_text(model, given, settings, ends)
    err.print(_REASONS[found].format(tokens=max_new_tokens, context=model.manifest.model.context))


_SETTINGS = ("max_new_tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed", "stop", "end")
_REASONS: Mapping[FinishReason | None, str] = {
    "length": "ended (length): {tokens} new tokens, as --max-new-tokens says",
    "stop": "ended (stop): a text of --stop came",
    "end": "ended (end token): a token of --end came",
    "capacity": "ended (capacity): the context of {context} tokens is full",
}


def _wants_ids(prompt: str | None, ids: str | None, output: str | None) -> bool:
    if (prompt is None) == (ids is None):
        got = "both" if ids is not None else "neither"
        raise ConfigError(f'got {got} of a prompt and --ids, expected one of them: the text to continue, or --ids "17 4 99"')
    return output == "ids" or (output is None and ids is not None)


def _check_output(output: str | None) -> None:
    if output not in (None, "text", "ids"):
        raise ConfigError(f'--output is "{output}", expected text or ids')


def _ids(given: str) -> npt.NDArray[Any]:
    """Of a file, if its name says so, or as they are given."""
    return read_id_file(Path(given)) if given.endswith(ID_FILES) else parse_ids(given, "--ids")


def _write_text(model: Model, given: str | npt.NDArray[Any], settings: dict[str, Any], ends: Ends) -> FinishReason | None:
    pieces = model.generate(given, **settings, end=ends)
    write(given if isinstance(given, str) else model.required_tokenizer().decode(given.tolist()))
    for piece in pieces:
        write(piece)
    write("\n")
    return pieces.finish_reason


def _write_ids(model: Model, given: str | npt.NDArray[Any], params: SamplingParams, ends: Ends) -> FinishReason | None:
    new = model.generate_ids(given, params, end=ends)
    shown = model.required_tokenizer().encode(given) if isinstance(given, str) else given.tolist()
    write(" ".join(map(str, shown)))
    for token in new:
        write(f" {token}")
    write("\n")
    return new.finish_reason
