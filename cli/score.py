"""`foveal score BUNDLE TEXT`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import msgspec
import typer
from rich.table import Table

from ..errors import ConfigError
from ..runtime.ids import ID_FILES, parse_ids, read_id_file
from .conditions import require
from .console import out, print_json
from .options import Native, Threads, Verified, native_counts, threads_count
from .threads import pool_threads

if TYPE_CHECKING:
    from ..runtime.model import Model
    from ..runtime.scores import Score


def score(
    context: typer.Context,
    bundle: Annotated[Path, typer.Argument(help="The bundle to run.")],
    text: Annotated[Optional[str], typer.Argument(help="Text to score.")] = None,  # noqa: UP045
    ids: Annotated[Optional[str], typer.Option(help='Or ids: "17 4 99".')] = None,  # noqa: UP045
    file: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Or a file: text, or ids where its name ends in .npy, .bin or .ids."),
    ] = None,
    top: Annotated[int, typer.Option(help="Give so many of the likeliest tokens at each place.")] = 0,
    stride: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Of a text longer than the context: tokens between the windows; half the context if not given."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    target: Annotated[str, typer.Option(help="Whose engines to run.")] = "cpu",
    threads: Threads = None,
    native: Native = None,
    verify: Verified = "used",
) -> None:
    """Say how likely a model finds each token of a text, and the text as a whole."""
    from .. import load, open_bundle
    from .. import score as score_text
    from ..bundle import checked_verify

    require(context, {"threads": threads_count(target), "native": native_counts(target)})
    given = _given(text, ids, file)
    opened = open_bundle(bundle, checked_verify(verify))
    model = load(opened, target, pool_threads(opened, target, threads, native), native=native)
    found = score_text(model, given, top, stride=stride)
    if stride is not None and found.stride is None:
        context_tokens = model.manifest.model.context
        raise ConfigError(
            f"--stride does nothing here: it takes a text longer than the context of {context_tokens} tokens, got one of "
            f"{len(found.ids)}; change that, or leave --stride out"
        )
    if json:
        print_json(msgspec.json.encode(found))
    else:
        _show(found, model)


def _given(text: str | None, ids: str | None, file: Path | None) -> Any:
    given = [one for one in (text, ids, file) if one is not None]
    if len(given) != 1:
        raise ConfigError(f"got {len(given)} of a text, --ids and --file, expected one of them: what to score")
    if file is None:
        return text if ids is None else parse_ids(ids, "--ids")
    if file.name.endswith(ID_FILES):
        return read_id_file(file)
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        names = ", ".join(f"*{ending}" for ending in ID_FILES)
        raise ConfigError(f"--file {file} can't be read: {reason}; expected UTF-8 text, or ids in {names}") from error


def _show(found: Score, model: Model) -> None:
    table = Table(box=None, header_style="bold")
    columns = ("token", "id", "logprob", "rank", *(["likeliest"] if found.logprobs[0].top else []))
    for column in columns:
        table.add_column(column, justify="left" if column in ("token", "likeliest") else "right")
    table.add_row(_written(model, found.ids[0]), str(found.ids[0]), "-", "-")
    for one in found.logprobs:
        row = [_written(model, one.token), str(one.token), f"{one.logprob:.4f}", f"{one.rank:,}"]
        top = "  ".join(f"{_written(model, token)} {logprob:.3f}" for token, logprob in one.top)
        table.add_row(*row, *([top] if top else []))
    out.print(table, markup=False)
    bits = "" if found.bits_per_byte is None else f"{found.bits_per_byte:.4f} bits per byte, "
    windows = "" if found.stride is None else f", in windows of {found.window:,} that begin {found.stride:,} apart"
    of = f"{found.logprob:.4f} of {len(found.logprobs):,} tokens"
    out.print(f"{bits}perplexity {found.perplexity:.4g}, log probability {of}{windows}")


def _written(model: Model, token: int) -> str:
    """A token as one sees it in a line; an id where there is no tokenizer."""
    return str(token) if model.tokenizer is None else repr(model.tokenizer.decode([token]))
