"""`foveal generate BUNDLE PROMPT`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import msgspec
import typer

from ..errors import ConfigError
from ..files import require_place
from ..runtime.generation.settings import check_count, params_of
from ..runtime.ids import ID_FILES, parse_ids, read_id_file
from ..runtime.logprobs import TokenLogprobs
from ..runtime.speculation.drafting import Speculation
from .conditions import require
from .console import err, print_json, write
from .generation_options import GenerationOptions, takes_generation_options
from .interrupts import interrupts_wait
from .on_ray import Address, OnRay
from .options import Native, Threads, Verified, native_counts, threads_count
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
    from ..runtime.generation.generate import GeneratedIds, GeneratedText
    from ..runtime.generation.observer import GenerationObserver
    from ..runtime.model import Model

_MOST_SLOTS = 16
"""Texts of one prompt that decode at once."""


@takes_generation_options
def generate(
    context: typer.Context,
    bundle: Annotated[Path, typer.Argument(help="The bundle to run.")],
    options: GenerationOptions,
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
    json: Annotated[bool, typer.Option("--json", help="Print text, ids, reason and log probabilities as JSON.")] = False,
    trace: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Write a timeline of the generation into this file, for ui.perfetto.dev; also when it is cut off."),
    ] = None,
    target: Annotated[str, typer.Option(help="Whose engines to run.")] = "cpu",
    threads: Threads = None,
    native: Native = None,
    verify: Verified = "used",
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
    from .. import load, open_bundle
    from ..bundle import checked_verify

    takes_files = files or on_ray
    require(context, _conditions(options, target, json, takes_files, on_ray, scored))
    if output not in (None, "text", "ids"):
        raise ConfigError(f'--output is "{output}", expected text or ids')
    settings = options.settings()  # before the model is loaded, which takes longer
    check_count(options.n)
    if takes_files:
        generate_files(
            bundle,
            prompts,
            out,
            settings,
            n=options.n,
            scored=scored,
            output=output,
            target=target,
            threads=threads,
            native=native,
            slots=slots,
            capacity=capacity,
            part_lines=part_lines,
            spread=Spread(on_ray, actors, cpus_per_actor, gpus_per_actor, address),
        )
        return
    if trace is not None:
        require_place(trace)  # better to fail now than behind the text
    prompt = one_prompt(prompts)
    as_ids = _wants_ids(prompt, ids, output)
    given = prompt if prompt is not None else _ids(ids or "")
    opened = open_bundle(bundle, checked_verify(verify))
    model = load(opened, target, pool_threads(opened, target, threads, native), native=native)
    if model.tokenizer is None and (isinstance(given, str) or not as_ids):
        raise ConfigError(
            f'{bundle} has no tokenizer, so it takes ids only: --ids "17 4 99", or --ids FILE; for text convert the checkpoint '
            "again with --tokenizer FILE, or --tokenizer bytes if its ids are bytes"
        )
    with _traced(model, trace) as observer:
        _print(model, given, settings, options, json, as_ids, observer)


def _print(
    model: Model,
    given: str | npt.ArrayLike,
    settings: dict[str, Any],
    options: GenerationOptions,
    json: bool,
    as_ids: bool,
    observer: GenerationObserver | None,
) -> None:
    """Generate, and print what comes as it comes; as JSON, or several texts, once all is there."""
    if json:
        print_json(msgspec.json.encode(_gather(model, given, settings, options.n, as_ids, observer)))
    elif options.n == 1:
        new = _begin(model, given, settings, as_ids, observer)
        write(_shown(model, given, as_ids))
        for piece in new:
            write(piece if isinstance(piece, str) else f" {piece}")
        write("\n")
        err.print(_why(new.finish_reason, new.end_rule, options, model) + _of_drafts(new.speculation))
    else:
        for choice in _gather(model, given, settings, options.n, as_ids, observer).choices:
            new_text = "".join(f" {token}" for token in choice.ids) if choice.text is None else choice.text
            write(f"=== {choice.index + 1} of {options.n} ===\n{_shown(model, given, as_ids)}{new_text}\n")
            why = _why(choice.finish_reason, None, options, model) + _of_drafts(choice.speculation)
            err.print(f"{choice.index + 1} of {options.n}: {why}")


@contextmanager
def _traced(model: Model, path: Path | None) -> Iterator[GenerationObserver | None]:
    """What observes the block, if a trace is asked for; what it saw, if anything, is written however the block ends."""
    if path is None:
        yield None
        return
    from ..bench.trace import Trace
    from ..bench.trace_file import save_trace

    trace = Trace(model)
    try:
        yield trace
    finally:
        if trace.has_begun:  # or the trace of an earlier run would go for a prompt that is refused
            with interrupts_wait():
                save_trace(path, trace)
            err.print(f"wrote {path}")


class _Choice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One text; `text` is None where ids were asked for, `logprobs` where none were; `speculation` is there with drafts."""

    index: int
    text: str | None
    ids: list[int]
    finish_reason: FinishReason | None
    logprobs: list[TokenLogprobs] | None
    speculation: Speculation | None = None


class _Generated(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints; `prompt` is None where ids were asked for, `prompt_logprobs` where none were."""

    prompt: str | None
    prompt_ids: list[int]
    prompt_logprobs: list[TokenLogprobs] | None
    choices: list[_Choice]


def _conditions(
    options: GenerationOptions, target: str, json: bool, takes_files: bool, on_ray: bool, scored: bool
) -> dict[str, tuple[bool, str]]:
    of_generation = [field.name for field in fields(GenerationOptions)]
    return {
        "threads": threads_count(target),
        "native": native_counts(target),
        "ids": (not takes_files, "no --files and no --ray: files hold the prompts"),
        "verify": (not takes_files, "no --files and no --ray, before which all files are hashed"),
        "trace": (not takes_files and options.n == 1, "one text: no --n, --files or --ray"),
        "json": (not takes_files, "no --files and no --ray, which write JSON lines"),
        **dict.fromkeys(OF_FILES, (takes_files, "--files, or --ray")),
        **dict.fromkeys(OF_ACTORS, (on_ray, "--ray")),
        **options.conditions(json or takes_files, "--json, which prints them, or --files"),
        **(dict.fromkeys((*of_generation, "output"), (False, "no --eval, which draws nothing")) if scored else {}),
    }


def _why(reason: FinishReason | None, rule: str | None, options: GenerationOptions, model: Model) -> str:
    if rule is not None:
        return f"ended (end rule): {rule}: {' or '.join(map(str, model.end_rules(rule)))}"
    if reason == "end" and options.end_rule:
        return "ended (end): an end of --end-rule, or a token of --end, came"
    seconds, tokens, room = options.max_seconds, options.max_new_tokens, model.manifest.model.context
    return _REASONS[reason].format(tokens=tokens, seconds=seconds, context=room)


def _of_drafts(found: Speculation | None) -> str:
    """How often they were right, and what that came to; nothing without drafts."""
    if found is None or found.tokens_per_call is None:
        return ""
    right = "none was checked" if found.acceptance is None else f"{found.acceptance:.0%} of {found.drafted:,} came"
    return f"; drafts: {right}, {found.tokens_per_call:.2f} tokens per call"


_REASONS: Mapping[FinishReason | None, str] = {
    "length": "ended (length): {tokens} new tokens, as --max-new-tokens says",
    "stop": "ended (stop): a text of --stop came",
    "end": "ended (end token): a token of --end came",
    "capacity": "ended (capacity): the context of {context} tokens is full",
    "complete": "ended (complete): the constraint allows nothing more",
    "deadline": "ended (deadline): the {seconds:g} seconds of --max-seconds are over",
}


def _wants_ids(prompt: str | None, ids: str | None, output: str | None) -> bool:
    if (prompt is None) == (ids is None):
        got = "both" if ids is not None else "neither"
        raise ConfigError(f'got {got} of a prompt and --ids, expected one of them: the text to continue, or --ids "17 4 99"')
    return output == "ids" or (output is None and ids is not None)


def _ids(given: str) -> npt.NDArray[Any]:
    """Of a file, if its name says so, or as they are given."""
    return read_id_file(Path(given)) if given.endswith(ID_FILES) else parse_ids(given, "--ids")


def _shown(model: Model, given: str | npt.ArrayLike, as_ids: bool) -> str:
    """The prompt, as what comes is written."""
    if as_ids:
        return " ".join(map(str, model.prompt_ids(given)))
    return given if isinstance(given, str) else model.required_tokenizer().decode(model.prompt_ids(given))


def _begin(
    model: Model,
    given: str | npt.ArrayLike,
    settings: dict[str, Any],
    as_ids: bool,
    observer: GenerationObserver | None = None,
) -> GeneratedIds | GeneratedText:
    if as_ids:
        ends = {name: settings[name] for name in ("end", "end_rules", "draft", "draft_tokens")}
        return model.generate_ids(given, params_of(settings), observer=observer, **ends)
    return model.generate(given, observer=observer, **settings)


def _gather(
    model: Model,
    given: str | npt.ArrayLike,
    settings: dict[str, Any],
    n: int,
    as_ids: bool,
    observer: GenerationObserver | None = None,
) -> _Generated:
    """All of it, once it has ended; one prompt is read once for all its texts."""
    if n > 1:
        choices, scored = _several(model, given, settings, n, as_ids)
    else:
        new = _begin(model, given, settings, as_ids, observer)
        text = "".join(map(str, new))
        found = None if settings["logprobs"] is None else new.logprobs
        choice = _Choice(
            index=0,
            text=None if as_ids else text,
            ids=new.ids,
            finish_reason=new.finish_reason,
            logprobs=found,
            speculation=new.speculation,
        )
        choices, scored = [choice], new.prompt_logprobs
    return _Generated(
        prompt=None if as_ids else _shown(model, given, as_ids),
        prompt_ids=model.prompt_ids(given),
        prompt_logprobs=None if settings["prompt_logprobs"] is None else scored,
        choices=choices,
    )


def _several(
    model: Model, given: str | npt.ArrayLike, settings: dict[str, Any], n: int, as_ids: bool
) -> tuple[list[_Choice], list[TokenLogprobs]]:
    from .. import Service

    texts: defaultdict[int, str] = defaultdict(str)
    ids: defaultdict[int, list[int]] = defaultdict(list)
    logprobs: defaultdict[int, list[TokenLogprobs]] = defaultdict(list)
    with Service(model, slots=min(n, _MOST_SLOTS), queue=n) as service:
        stream = service.submit(given, n=n, as_text=not as_ids, **settings)
        for event in stream:
            texts[event.index] += event.text
            if event.token is not None:
                ids[event.index].append(event.token)
            if event.logprobs is not None:
                logprobs[event.index].append(event.logprobs)
    choices = [
        _Choice(
            index=index,
            text=None if as_ids else texts[index],
            ids=ids[index],
            finish_reason=stream.finish_reasons[index],
            logprobs=None if settings["logprobs"] is None else logprobs[index],
            speculation=stream.speculation.get(index),
        )
        for index in range(n)
    ]
    return choices, stream.prompt_logprobs
