"""Which stage is it that differs? Two targets, or two bundles of one model, compared stage by stage and as running systems."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import msgspec

from ...bundle import Bundle
from ...calibration.text import Texts
from ...errors import ConfigError, EquivalenceError
from ...progress import Progress, silent
from ...runtime.schedules import differing
from ...runtime.session import Session
from ...storage import storage_errors
from .chunks import random_chunks
from .errors import TOLERANCE, Comparison
from .systems import System, pair_of, token_ids
from .teacher_forcing import Ids, Recording, compare_forced, logits_place, record

SYSTEM = "the system"
OWN = "the system, own schedule"
_SEED = 20211026


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """How far one place is from the reference.

    Attributes:
        name: a stage, a cut inside one, or `"the system"`, whose stages are fed with what it computes itself; where the data
            decides, it fires as the reference does, and `"the system, own schedule"` as its own values say.
        decoded: in what calls.
        firings: that were compared; for the system tokens.
        max_error, mean_error: of the reference's largest magnitude there.
        where: the first place beyond the tolerance; None: there is none, or, on its own schedule, nothing to hold it to.
        flips: of a system on its own schedule: at so many tokens it makes a boundary where the reference makes none, or none
            where that makes one.
    """

    name: str
    decoded: str
    firings: int
    max_error: float
    mean_error: float
    where: str | None = None
    flips: int | None = None


class CompareReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `compare` found, in dataflow order; without a tolerance nothing passes or fails.

    Attributes:
        tolerance: of the largest magnitude.
        inside: the stage that was cut; None: what was compared are whole stages.
    """

    reference: str
    other: str
    tokens: int
    tolerance: float | None
    inside: str | None = None
    stages: tuple[Difference, ...]
    system: tuple[Difference, ...] = ()

    @property
    def first_failure(self) -> Difference | None:
        """The first stage beyond the tolerance; the system, if it is none of them."""
        return next((found for found in (*self.stages, *self.system) if found.where is not None), None)

    def require_equal(self) -> None:
        """Raise EquivalenceError, naming the first place that differs, unless all is within the tolerance."""
        failed = self.first_failure
        if failed is not None:
            is_stage = self.inside is None and failed in self.stages
            place = f'stage "{failed.name}"' if is_stage else failed.name
            raise EquivalenceError(
                f"{self.other} differs from {self.reference}: {place}, {failed.where}, {failed.decoded}; largest error "
                f"{failed.max_error:.1e} of the largest value, expected at most {self.tolerance:.0e}"
                + (f"; look inside with --stage {failed.name} --cuts" if is_stage else "")
            )


@storage_errors()
def compare(
    bundle: str | Path | Bundle,
    targets: Sequence[str] = ("cpu",),
    *,
    other: str | Path | Bundle | None = None,
    texts: Texts = (),
    tokens: int | None = None,
    tolerance: float | None = None,
    provider: str | None = None,
    on_progress: Progress | None = None,
) -> CompareReport:
    """Compare two systems that decode the same ids, token by token and in random chunks.

    Every stage of the second is fed with the rows of the first, so that an error is charged to the stage that makes it. Then
    it runs on its own rows, and its logits are compared. Where the data decides when stages fire, all of this is by the
    schedule of the first; then the second runs by its own, and where it fires otherwise is counted.

    Args:
        bundle: the reference.
        targets: the reference's, then the other's; one, if there is another bundle. `"portable"`: the stage graphs as they are.
        other: another bundle of the same model; None: the same.
        texts: files, or directories of `*.txt`, whose beginning is decoded; none: random ids.
        tokens: that are decoded; None: two periods of firing, and a few more.
        tolerance: of the largest magnitude that a stage gives; None: 1e-4 between fp32 bundles, else none.
        provider: what `cuda` engines run on.
        on_progress: called before each decoding.

    Raises:
        ConfigError: not two systems of one model; unsuitable tokens or tolerance.
        EquivalenceError: not raised here; call `report.require_equal()`.
        Others: as `runtime.load`.
    """
    pair = pair_of(bundle, targets, other, provider)
    allowed = tolerance_for(pair, tolerance)
    ids = token_ids(pair[0].bundle, texts, tokens)
    stages, system = differences(pair, ids, allowed, on_progress or silent)
    return report_of(pair, ids, allowed, stages, system)


def report_of(
    pair: tuple[System, System],
    ids: Ids,
    tolerance: float | None,
    stages: Sequence[Difference],
    system: Sequence[Difference] = (),
    inside: str | None = None,
) -> CompareReport:
    """What was found, and between what."""
    return CompareReport(
        reference=str(pair[0]),
        other=str(pair[1]),
        tokens=ids.shape[1],
        tolerance=tolerance,
        inside=inside,
        stages=tuple(stages),
        system=tuple(system),
    )


def tolerance_for(pair: tuple[System, System], asked: float | None) -> float | None:
    """What was asked; else that of fp32, if both are: other precisions differ on purpose.

    Raises:
        ConfigError: a tolerance that is not positive.
    """
    if asked is not None and not asked > 0:
        raise ConfigError(f"the tolerance is {asked}, expected a positive share of the largest value, such as 1e-3")
    is_exact = all(system.bundle.manifest.precision == "fp32" for system in pair)
    return TOLERANCE if asked is None and is_exact else asked


def differences(
    pair: tuple[System, System], ids: Ids, tolerance: float | None, report: Progress
) -> tuple[list[Difference], list[Difference]]:
    """Stage by stage, in dataflow order, and as running systems; both ways of decoding."""
    length = ids.shape[1]
    ways = {"token by token": [1] * length, "random chunks": random_chunks(length, _SEED)}
    reference, other = (system.opener(length) for system in pair)
    has_logits = pair[0].bundle.manifest.stages[-1].spec.output == "logits"
    stages, systems = [], []
    for index, (way, chunks) in enumerate(ways.items()):
        report(f"{way}, the reference", 3 * index, 3 * len(ways))
        expected = record(reference(), ids, chunks)
        report(f"{way}, each stage on the reference's rows", 3 * index + 1, 3 * len(ways))
        stages.append(_of_stages(way, other(), expected, ids, chunks, tolerance))
        if has_logits:
            report(f"{way}, as a system", 3 * index + 2, 3 * len(ways))
            systems.append(_of_system(way, other(), expected, ids, chunks, tolerance))
            if expected.schedule:
                systems.append(_on_own_schedule(way, other(), expected, ids, chunks))
    report("done", 3 * len(ways), 3 * len(ways))
    return [found for both in zip(*stages, strict=True) for found in both], systems


def _of_stages(
    way: str, session: Session, expected: Recording, ids: Ids, chunks: Sequence[int], tolerance: float | None
) -> list[Difference]:
    names = [spec.name for spec in session.specs]
    found = [Comparison(name, tolerance, expected.magnitude(index)) for index, name in enumerate(names)]
    with session:
        fired = compare_forced(session, expected, ids, chunks, found)
    return [_difference(comparison, way, fired[comparison.name]) for comparison in found]


def _of_system(
    way: str, session: Session, expected: Recording, ids: Ids, chunks: Sequence[int], tolerance: float | None
) -> Difference:
    """Of what the last stage gives: its logits."""
    found = Comparison(SYSTEM, tolerance, expected.magnitude(-1))
    with session:
        session.follow(expected.schedule)
        found.add(record(session, ids, chunks).outputs[-1], expected.outputs[-1], partial(logits_place, 0), axis=1)
    return _difference(found, way, ids.shape[1])


def _on_own_schedule(way: str, session: Session, expected: Recording, ids: Ids, chunks: Sequence[int]) -> Difference:
    """What it costs that rounding moves boundaries, and how many it moves: no tolerance can be asked of that."""
    found = Comparison(OWN, None, expected.magnitude(-1))
    with session:
        own = record(session, ids, chunks)
    found.add(own.outputs[-1], expected.outputs[-1], partial(logits_place, 0), axis=1)
    flips = sum(differing(own.schedule[clock], decided) for clock, decided in expected.schedule.items())
    return msgspec.structs.replace(_difference(found, way, ids.shape[1]), flips=flips)


def _difference(found: Comparison, way: str, firings: int) -> Difference:
    magnitude = found.magnitude or 1.0
    return Difference(
        name=found.name,
        decoded=way,
        firings=firings,
        max_error=found.largest / magnitude,
        mean_error=found.mean / magnitude,
        where=found.where,
    )
