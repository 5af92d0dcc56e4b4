"""Several models as a deployer sees them: how well each predicts a text, and how long a token of it takes.

    foveal bench fp32/vanilla fp32/hourglass int8/vanilla int8/hourglass --save bench.json
    foveal eval fp32/vanilla --text books/valid --json > valid-fp32-vanilla.json        # and so on, for each bundle and text
    python -m foveal.bench.quality_and_time bench.json --text valid valid-*.json --text test test-*.json --picture out.svg

Prints a table in Markdown, or puts it into a document, and draws time per token against bits per byte. A bundle is known by the
name of its directory and its precision. Those that no other beats, by being both better and no slower, are the frontier.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from ..calibration.plotting import new_axes, require_picture, save
from ..calibration.quality import Quality
from ..errors import ConfigError
from ..files import write_atomically
from ..json_files import decode
from .document import insert
from .result import BenchResult, ModelResult, read_result
from .script import run_script

_MARKERS = "osD^vP*X"
"""By precision, in the order in which they come."""


class Evaluation(msgspec.Struct, frozen=True):
    """What `foveal eval --json` prints, as far as it is read."""

    quality: Quality


class Text(NamedTuple):
    """How well bundles predict one text, by their name and precision."""

    name: str
    qualities: dict[tuple[str, str], Quality]


class Candidate(NamedTuple):
    """A bundle: what it takes, and what it gives on each text. `on_frontier` is by the first text."""

    measured: ModelResult
    ms: float
    qualities: tuple[Quality, ...]
    on_frontier: bool


def main() -> None:
    """Read, print or put into a document, and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("bench", type=Path, help="what `foveal bench --save` wrote")
    parser.add_argument(
        *("--text",), nargs="+", action="append", required=True, metavar=("NAME", "EVAL.json"), help="may be repeated"
    )
    parser.add_argument("--picture", type=Path, help="an .svg or .png")
    parser.add_argument("--document", type=Path, help="put the table between its marks, <!-- figures: MARK -->")
    parser.add_argument("--mark", default="quality-and-time", help="where a document has several; not given, quality-and-time")
    given = parser.parse_args()
    if given.picture is not None:
        require_picture(given.picture)
    texts = [read_text(name, list(map(Path, files))) for name, *files in given.text]
    result = read_result(given.bench)
    found = candidates(result, texts)
    if given.picture is not None:
        draw(given.picture, found, texts[0].name)
    table = markdown(found, texts, result)
    if given.document is None:
        print(table)
    else:
        write_atomically(given.document, insert(given.document.read_text(), {given.mark: table}).encode())


def read_text(name: str, files: Sequence[Path]) -> Text:
    """Evaluations on one text.

    Raises:
        ConfigError: none, one that is not what `foveal eval --json` prints or has no bits per byte, or two of one bundle.
    """
    found: dict[tuple[str, str], Quality] = {}
    for file in files:
        try:
            quality = decode(file.read_bytes(), Evaluation).quality
        except msgspec.MsgspecError as error:
            raise ConfigError(f"{file} is not what `foveal eval BUNDLE --json` prints: {error}") from error
        key = Path(quality.bundle).name, quality.precision
        if quality.bits_per_byte is None:
            raise ConfigError(f"{file} has no bits per byte: {quality.bundle} has no tokenizer")
        if key in found:
            raise ConfigError(f"two evaluations of {key[0]} in {key[1]} on the text {name}; expected one for each bundle")
        found[key] = quality
    if not found:
        raise ConfigError(f"no evaluations on the text {name}; name files that `foveal eval BUNDLE --json` printed")
    return Text(name, found)


def candidates(result: BenchResult, texts: Sequence[Text]) -> list[Candidate]:
    """The bundles that were timed, in their order, with milliseconds per token of the median round.

    Raises:
        ConfigError: one that was not evaluated on all texts.
    """
    timed = []
    for model in result.models:
        key = model.name, model.precision
        missing = [text.name for text in texts if key not in text.qualities]
        if missing:
            raise ConfigError(f"{key[0]} in {key[1]} was timed, but not evaluated on {', '.join(missing)}")
        timed.append((model, 1e3 / model.latency.decode_tokens_per_s, tuple(text.qualities[key] for text in texts)))
    points = [(ms, _bits(qualities[0])) for _, ms, qualities in timed]
    return [Candidate(*one, not any(_beats(other, mine) for other in points)) for one, mine in zip(timed, points, strict=True)]


def _beats(other: tuple[float, float], mine: tuple[float, float]) -> bool:
    """Whether one (ms, bits) is nowhere worse than another, and somewhere better."""
    return other != mine and other[0] <= mine[0] and other[1] <= mine[1]


def _bits(quality: Quality) -> float:
    return quality.bits_per_byte or 0.0


def _half_width(quality: Quality) -> float:
    """Of the 95 % interval of the bits per byte."""
    return quality.nats_half_width * _bits(quality) / quality.nats_per_token


def markdown(found: Sequence[Candidate], texts: Sequence[Text], result: BenchResult) -> str:
    """One line for each bundle, and what they were measured on."""
    columns = ["model", "hierarchy", "precision", "weights, MB", *(f"{text.name}, bits per byte" for text in texts)]
    columns += ["ms per token", "p50 of a step", "p99", "tokens/s", "beaten by none"]
    rows = [columns, ["---"] * 3 + ["---:"] * (len(columns) - 3), *(_row(one) for one in found)]
    lines = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    machine = result.environment
    packages = ", ".join(f"{name} {machine.packages[name]}" for name in ("foveal", "onnxruntime") if name in machine.packages)
    return (
        f"{lines}\n\nThe times: {machine.cpu}, {machine.cpus_usable} CPUs, {packages}; {machine.created_utc[:10]}, "
        f"`{result.command}`{'' if result.status == 'complete' else f' ({result.status}: ' + '; '.join(result.problems) + ')'}."
    )


def _row(one: Candidate) -> list[str]:
    model, steps = one.measured, one.measured.latency.itl_ms
    weights = "-" if model.memory is None else f"{model.memory.weights_bytes / 1e6:.1f}"
    bits = [f"{_bits(quality):.4f} ± {_half_width(quality):.4f}" for quality in one.qualities]
    times = ["-" if value is None else f"{value:.3f}" for value in (one.ms, steps.p50, steps.p99)]
    rate = f"{model.latency.decode_tokens_per_s:,.0f}"
    return [model.name, f"`{model.hierarchy}`", model.precision, weights, *bits, *times, rate, "yes" if one.on_frontier else ""]


def draw(out: Path, found: Sequence[Candidate], text: str) -> None:
    """Write the picture, the same bytes for the same figures: a colour for each model, a mark for each precision.

    Raises:
        BackendUnavailable: matplotlib is not installed.
    """
    figure, axes = new_axes()
    models = list(dict.fromkeys(one.measured.name for one in found))
    precisions = list(dict.fromkeys(one.measured.precision for one in found))
    for place, name in enumerate(models):
        mine = [one for one in found if one.measured.name == name]
        axes.plot([one.ms for one in mine], [_bits(one.qualities[0]) for one in mine], color=f"C{place}", alpha=0.4)
        for one in mine:
            marker = _MARKERS[precisions.index(one.measured.precision) % len(_MARKERS)]
            label = f"{name}, {one.measured.precision}"
            axes.plot(one.ms, _bits(one.qualities[0]), marker, color=f"C{place}", label=label)
    frontier = sorted((one.ms, _bits(one.qualities[0])) for one in found if one.on_frontier)
    steps, bits = zip(*frontier, strict=True)
    axes.step(steps, bits, where="post", color="grey", linestyle=":", label="beaten by none", zorder=0)
    axes.set(xlabel="time per token, ms", ylabel=f"{text}, bits per byte")
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    save(figure, out)


if __name__ == "__main__":
    run_script(main)
