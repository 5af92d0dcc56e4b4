"""What a token costs against where it stands, in time and memory: the picture of long contexts in docs/performance.md.

python -m foveal.bench.long_context build DIRECTORY
python -m foveal.bench.long_context measure BUNDLE NAME RESULT.json
python -m foveal.bench.long_context draw OUT.svg RESULT.json...

`build` writes a bundle of random weights for each family, all of six layers. `measure` belongs in a fresh process for each, as
it tells the memory of its process; results of the same name are rounds, of which medians are drawn.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, median
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from ..calibration.plotting import require_picture, save
from ..contract import period_of
from ..errors import CapacityError, ConfigError
from ..files import write_atomically
from ..json_files import decode
from ..runtime.host import HostDecoder
from ..runtime.model import load
from ..runtime.session import Session
from .environment import Environment, read_environment, resident_bytes
from .random_models import RandomModels
from .script import run_script
from .statistics import NS_PER_MS

if TYPE_CHECKING:
    from ..models.architecture import Architecture

CONTEXT, DIM, HEADS, VOCAB_SIZE = 16_384, 256, 4, 256
POSITIONS = (64, 512, 1024, 2048, 3072, 4096, 6144, 8192, 10_240, 12_288, 14_336, 16_000)
PERIODS = 6
"""Times that every phase of the hierarchy is timed at each position."""
CHUNK = 128


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """At a position: the mean over phases of the median step, in milliseconds, and bytes.

    `state_bytes` are those of rows and caches that hold something, `resident_bytes` those of the process, interpreter, weights
    and what the engines work with included; null where the system does not say.
    """

    position: int
    ms: float
    state_bytes: int
    resident_bytes: int | None


class LongContext(msgspec.Struct, frozen=True, kw_only=True):
    """One round of one bundle; `state_reserved_bytes` are those of addresses, most of them memory only once it is written."""

    name: str
    hierarchy: str
    capacity: int
    threads: int
    state_reserved_bytes: int
    points: list[Point]
    environment: Environment


def models(context: int = CONTEXT) -> dict[str, Callable[[], Architecture]]:
    """Models of six layers and their names. torch is imported here, so that no process that measures holds it."""
    from ..models.megabyte.config import MegabyteConfig
    from ..models.megabyte.model import Megabyte
    from ..models.trax.config import TraxConfig
    from ..models.trax.model import TraxHourglass

    sizes = RandomModels(dim=DIM, heads=HEADS, ff_dim=4 * DIM, vocab_size=VOCAB_SIZE, context=context)
    trax = TraxConfig(hierarchy="1@1 4@4 1@1", vocab_size=VOCAB_SIZE, dim=DIM, heads=HEADS, ff_dim=4 * DIM, context=context)
    megabyte = MegabyteConfig(
        vocab_size=VOCAB_SIZE, dims=(DIM, DIM), depths=(4, 2), lengths=(context // 8, 8), heads=HEADS, head_dim=DIM // HEADS
    )
    return {
        "vanilla": lambda: sizes.build("6@1"),
        "hourglass": lambda: sizes.build("1@1 4@4 1@1"),
        "trax": lambda: _seeded(TraxHourglass, trax),
        "retina": lambda: sizes.build("6@1", "retina"),
        "megabyte": lambda: _seeded(Megabyte, megabyte),
    }


def _seeded(kind: Callable[..., Architecture], config: object) -> Architecture:
    import torch

    torch.manual_seed(0)
    return kind(config)


def measure(
    bundle: Path, name: str, threads: int = 2, positions: Sequence[int] = POSITIONS, periods: int = PERIODS
) -> LongContext:
    """Fill a session up to each position, in chunks, and time single tokens there.

    Raises:
        CapacityError: the model's context ends before the last of them.
    """
    model = load(bundle, threads=threads)
    context, phases = model.manifest.model.context, period_of(model.specs)
    if positions[-1] + periods * phases > context:
        raise CapacityError(
            f"{bundle.name} has a context of {context} tokens, got {periods * phases} tokens to time behind {positions[-1]}; "
            "take a model of a longer context, or earlier positions"
        )
    ids = np.random.default_rng(0).integers(0, model.manifest.model.vocab_size, (1, context))
    with model.session() as session:
        points = [_point(session, ids, position, phases, periods) for position in positions]
        reserved = sum(session.state_bytes.values())
    return LongContext(
        name=name,
        hierarchy=model.manifest.model.hierarchy,
        capacity=context,
        threads=threads,
        state_reserved_bytes=reserved,
        points=points,
        environment=read_environment(),
    )


def _point(session: Session, ids: npt.NDArray[np.int64], position: int, phases: int, periods: int) -> Point:
    while session.position < position:
        end = min(session.position + CHUNK, position)
        session.advance(ids[:, session.position : end], last_only=True)
    by_phase: list[list[int]] = [[] for _ in range(phases)]
    for step in range(periods * phases):
        token = ids[:, session.position : session.position + 1]
        began = perf_counter_ns()
        session.advance(token, last_only=True)
        by_phase[step % phases].append(perf_counter_ns() - began)
    return Point(
        position=position,
        ms=fmean(map(median, by_phase)) / NS_PER_MS,
        state_bytes=used_bytes(session),
        resident_bytes=resident_bytes(),
    )


def used_bytes(session: Session) -> int:
    """Bytes of the rows that a session on the CPU has written, in caches and logs.

    Raises:
        ConfigError: its state is not in the host's memory.
    """
    decoder = session.decoder
    if not isinstance(decoder, HostDecoder):
        raise ConfigError("only sessions on the CPU say what they have used; load the bundle with target cpu")
    found = 0
    for index, step in enumerate(decoder.steps):
        fired = step.clock.firings_within(session.position)
        for cache, array in zip(step.spec.caches, step.bound.caches, strict=True):
            found += array.nbytes * min(cache.length(fired), array.shape[2]) // array.shape[2]
        rows = decoder.rows(index, session.position)
        found += 0 if rows is None else rows.nbytes
    return found


def medians(rounds: Sequence[LongContext]) -> dict[str, list[Point]]:
    """By name, at each position the medians of its rounds, in the order of the first.

    Raises:
        ConfigError: rounds of one name that are of other positions.
    """
    by_name: dict[str, list[LongContext]] = defaultdict(list)
    for result in rounds:
        by_name[result.name].append(result)
    return {name: [_median(name, points) for points in _columns(name, found)] for name, found in by_name.items()}


def _columns(name: str, rounds: Sequence[LongContext]) -> list[tuple[Point, ...]]:
    positions = [[point.position for point in found.points] for found in rounds]
    if any(places != positions[0] for places in positions):
        raise ConfigError(f'rounds of "{name}" are of positions {positions}, expected the same in each; measure them again')
    return list(zip(*(found.points for found in rounds), strict=True))


def _median(name: str, points: Sequence[Point]) -> Point:
    resident = [point.resident_bytes for point in points if point.resident_bytes is not None]
    return Point(
        position=points[0].position,
        ms=median(point.ms for point in points),
        state_bytes=points[0].state_bytes,
        resident_bytes=int(median(resident)) if len(resident) == len(points) else None,
    )


def draw(out: Path, rounds: Sequence[LongContext]) -> None:
    """Write an SVG, the same bytes for the same results: milliseconds per token, and megabytes in use
    and of the process, against the position; what is called "..., before" is dashed.

    Raises:
        BackendUnavailable: matplotlib is not installed.
        ConfigError: a suffix that names no format, or rounds that don't fit together.
    """
    require_picture(out)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4), layout="constrained")
    time, used, process = figure.subplots(1, 3)
    for number, (name, points) in enumerate(medians(rounds).items()):
        style: dict[str, Any] = {"marker": ".", "label": name, "color": f"C{number}"}
        is_before = name.endswith("before")
        positions = [point.position for point in points]
        time.plot(positions, [point.ms for point in points], "--" if is_before else "-", **style)
        if not is_before:  # it keeps the same rows
            used.plot(positions, [point.state_bytes / 1e6 for point in points], **style)
        if all(point.resident_bytes is not None for point in points):
            resident = [(point.resident_bytes or 0) / 1e6 for point in points]
            process.plot(positions, resident, "--" if is_before else "-", **style)
    for axes, label in ((time, "a token, ms"), (used, "rows and caches in use, MB"), (process, "the whole process, MB")):
        axes.set(xlabel="position, tokens", ylabel=label, ylim=(0, None), xticks=range(0, 16_001, 4_000))
        axes.grid(alpha=0.3)
    figure.legend(*time.get_legend_handles_labels(), loc="outside upper center", ncols=6, frameon=False)
    save(figure, out)


def show(rounds: Sequence[LongContext]) -> Table:
    """The same as a table."""
    found = medians(rounds)
    table = Table("position", *found, title="milliseconds per token; megabytes in use, of the process", box=None)
    for index, position in enumerate(point.position for point in next(iter(found.values()))):
        table.add_row(f"{position:,}", *(_cell(points[index]) for points in found.values()))
    return table


def _cell(point: Point) -> str:
    resident = "-" if point.resident_bytes is None else f"{point.resident_bytes / 1e6:.0f}"
    return f"{point.ms:.2f}; {point.state_bytes / 1e6:.0f}, {resident}"


def _read(file: Path) -> LongContext:
    try:
        return decode(file.read_bytes(), LongContext)
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{file} holds no result of this benchmark ({error}); write one with its measure") from error


def main() -> None:
    """Build, measure or draw.

    Raises:
        ConfigError: a file that holds no result.
        CapacityError: a model of a context too short.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    building = commands.add_parser("build")
    building.add_argument("directory", type=Path)
    measuring = commands.add_parser("measure")
    measuring.add_argument("bundle", type=Path)
    measuring.add_argument("name")
    measuring.add_argument("result", type=Path)
    measuring.add_argument("--threads", type=int, default=2)
    drawing = commands.add_parser("draw")
    drawing.add_argument("out", type=Path)
    drawing.add_argument("results", type=Path, nargs="+")
    given = parser.parse_args()
    if given.command == "build":
        from ..export import convert_model

        for name, model in models().items():
            convert_model(model(), given.directory / name)
    elif given.command == "measure":
        found = measure(given.bundle, given.name, given.threads)
        write_atomically(given.result, msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
    else:
        rounds = [_read(file) for file in given.results]
        draw(given.out, rounds)
        Console().print(show(rounds))


if __name__ == "__main__":
    run_script(main)
