"""The settings of a generation as options, for every verb that generates: the same words, defaults and checks."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import update_wrapper
from pathlib import Path
from typing import Annotated, Any, Optional, get_type_hints

import typer

from ..errors import ConfigError
from ..runtime.generation.settings import params_of
from ..runtime.ids import written_id
from ..runtime.sampling import SamplingParams
from ..runtime.speculation.opening import checked_most
from .options import checked_draft


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """What the options say; `settings` makes of it what `Model.generate` takes.

    Raises (by `settings`):
        ConfigError: a bias that is none, or a file that can't be read.
        InputError, BackendUnavailable: as `params_of`.
    """

    max_new_tokens: Annotated[int, typer.Option(help="Stop after so many tokens.")] = SamplingParams.max_new_tokens
    min_tokens: Annotated[int, typer.Option(help="Heed --stop, --end and --end-rule only behind so many tokens.")] = (
        SamplingParams.min_tokens
    )
    max_seconds: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Stop when so much time has passed since the prompt was given."),
    ] = None
    n: Annotated[int, typer.Option(help="Write so many texts; text k has a seed that is larger by k.")] = 1
    temperature: Annotated[
        float, typer.Option(help="0: always the likeliest token, whatever --top-k, --top-p, --min-p and --seed say.")
    ] = SamplingParams.temperature
    top_k: Annotated[int, typer.Option(help="Keep the k likeliest tokens; 0: all, 1: as --temperature 0.")] = (
        SamplingParams.top_k
    )
    top_p: Annotated[float, typer.Option(help="Keep the likeliest tokens of this total probability.")] = SamplingParams.top_p
    min_p: Annotated[float, typer.Option(help="Drop tokens below this share of the likeliest one's probability.")] = (
        SamplingParams.min_p
    )
    repetition_penalty: Annotated[float, typer.Option(help="Above 1: make seen tokens less likely.")] = (
        SamplingParams.repetition_penalty
    )
    frequency_penalty: Annotated[
        float, typer.Option(help="Subtract so much from a token's logit for each time that it was drawn.")
    ] = SamplingParams.frequency_penalty
    presence_penalty: Annotated[float, typer.Option(help="Subtract so much from the logit of every token that was drawn.")] = (
        SamplingParams.presence_penalty
    )
    logit_bias: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Add to the logit of a token: ID=BIAS, such as 17=-5; 17=-inf forbids it. May be repeated."),
    ] = None
    seed: Annotated[Optional[int], typer.Option(help="The same seed gives the same text.")] = None  # noqa: UP045
    stop: Annotated[Optional[list[str]], typer.Option(help="End before this text; may be repeated.")] = None  # noqa: UP045
    end: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="End before this token, an id or as the tokenizer writes it, such as </s>; may be repeated."),
    ] = None
    end_rule: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="End where the model's own ids mark it, such as piece (foveal inspect lists them); may be repeated."),
    ] = None
    json_schema: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Write JSON of this schema: a file, or the schema itself."),
    ] = None
    regex: Annotated[Optional[str], typer.Option(help="Write what this regular expression (Rust's) matches.")] = None  # noqa: UP045
    grammar: Annotated[Optional[Path], typer.Option(help="Write what the grammar in this file (Lark) allows.")] = None  # noqa: UP045
    logprobs: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Give the log probabilities of new tokens, and of so many of the likeliest at each place."),
    ] = None
    prompt_logprobs: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Give the same for the tokens of the prompt, but the first."),
    ] = None
    draft: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="Guess tokens to come, and check several in one call: ngrams, or a bundle with the same tokenizer. "
            "The text is the same."
        ),
    ] = None
    draft_tokens: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Tokens of one draft at most; how many are best is measured."),
    ] = None

    def settings(self) -> dict[str, Any]:
        """By the names of `Model.generate`, checked as far as that needs no model."""
        given: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in _MADE}
        given["stop"] = tuple(self.stop or ())
        ends = [(token, written_id(token)) for token in self.end or ()]
        given["end"] = [token if id is None else id for token, id in ends]
        given["end_rules"] = tuple(self.end_rule or ())
        given["logit_bias"] = _biases(self.logit_bias or ())
        given["json_schema"] = None if self.json_schema is None else _schema(self.json_schema)
        given["draft"] = checked_draft(self.draft)
        if self.draft_tokens is not None:
            checked_most(self.draft_tokens)
        given["grammar"] = None if self.grammar is None else _read(self.grammar, "--grammar")
        params_of(given)
        return given

    def conditions(self, gives_logprobs: bool, instead: str) -> Mapping[str, tuple[bool, str]]:
        """Of options that do nothing by themselves, as `require` takes them.

        Args:
            gives_logprobs: whether what is printed has room for log probabilities.
            instead: what it takes for that.
        """
        return {
            "min_tokens": (bool(self.stop or self.end or self.end_rule), "--stop, --end or --end-rule, which it holds off"),
            "draft_tokens": (self.draft is not None, "--draft"),
            "logprobs": (gives_logprobs, instead),
            "prompt_logprobs": (gives_logprobs, instead),
        }


_MADE = ("n", "stop", "end", "end_rule", "logit_bias", "json_schema", "grammar", "draft")
"""Fields that are no settings, or are made into one."""


def takes_generation_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command, in the place of its parameter `options`, an option for each field of `GenerationOptions`."""
    hints, made = get_type_hints(command, include_extras=True), get_type_hints(GenerationOptions, include_extras=True)
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        if parameter.name == "options":
            parameters += [_option(field.name, made[field.name], field.default) for field in fields(GenerationOptions)]
        else:
            parameters.append(_option(parameter.name, hints[parameter.name], parameter.default))

    def run(**given: Any) -> None:
        options = {field.name: given.pop(field.name) for field in fields(GenerationOptions)}
        command(**given, options=GenerationOptions(**options))

    update_wrapper(run, command)
    del run.__wrapped__  # type: ignore[attr-defined]  # whose signature has other parameters
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run


def _option(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def _biases(given: Sequence[str]) -> dict[int, float]:
    found: dict[int, float] = {}
    for token, bias in map(_bias, given):
        if token in found:
            raise ConfigError(f"--logit-bias names {token} twice, expected one bias for each token")
        found[token] = bias
    return found


def _bias(given: str) -> tuple[int, float]:
    token, _, bias = given.partition("=")
    try:
        return int(token), float(bias)
    except ValueError:
        raise ConfigError(f'--logit-bias is "{given}", expected ID=BIAS, such as 17=-5, or 17=-inf') from None


def _schema(given: str) -> str:
    """What begins as JSON does is the schema itself."""
    is_itself = re.match(r'\s*([{\["]|$|(true|false)\s*$)', given) is not None
    return given if is_itself else _read(Path(given), "--json-schema")


def _read(path: Path, option: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{option} {path} can't be read: {reason}; expected a file of UTF-8 text") from error
