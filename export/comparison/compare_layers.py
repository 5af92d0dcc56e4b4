"""Which layer of a stage is it that differs? Its prefixes, each built for both systems and compared on the same rows."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ...bundle import Bundle, StageEntry, list_files, open_bundle, write_manifest
from ...calibration.text import Texts
from ...contract import StageSpec
from ...errors import ConfigError
from ...files import scratch_directory
from ...progress import Progress, silent, within
from ...storage import storage_errors
from ..add_engines import written
from ..compile import compile_stage
from ..graphs.gpu import DeviceFamily
from ..targets import family_for
from ..tensorrt.options import EngineOptions
from .compare_stages import CompareReport, Difference, differences, report_of, tolerance_for
from .layer_prefixes import Cut, cuts_of, write_prefix
from .portable_engines import PORTABLE
from .systems import System, pair_of, token_ids


@storage_errors()
def compare_cuts(
    bundle: str | Path | Bundle,
    stage: str,
    targets: Sequence[str] = (PORTABLE, "cpu"),
    *,
    other: str | Path | Bundle | None = None,
    texts: Texts = (),
    tokens: int | None = None,
    tolerance: float | None = None,
    provider: str | None = None,
    on_progress: Progress | None = None,
) -> CompareReport:
    """Compare what stands in the residual stream after each layer's attention and feed forward in one stage.

    The stage's graph is cut into prefixes, and each is built for both systems as a stage is, so engines are fused up to the
    cut as they would be. What a later layer adds is no output of any of them.

    Args:
        stage: its name; the other arguments are those of `compare`.

    Raises:
        ConfigError: no such stage, or one that is not a stack of layers; else as `compare`.
        BuildError: a target refuses a prefix.
    """
    pair = pair_of(bundle, targets, other, provider)
    entry, report = _entry_of(pair[0].bundle, stage), on_progress or silent
    allowed, ids = tolerance_for(pair, tolerance), token_ids(pair[0].bundle, texts, tokens)
    cuts: list[Cut | None] = [*cuts_of(entry.spec, pair[0].bundle.file(entry.graph)), None]
    found: list[Difference] = []
    for index, cut in enumerate(cuts):
        name = f"{stage}/exit" if cut is None else cut.name
        with scratch_directory() as directory:
            report(f"building {name}", index, len(cuts))
            built = [cut_system(system, stage, cut, directory / str(side)) for side, system in enumerate(pair)]
            inner = within(report, f"comparing {name}", index, len(cuts))
            stages, _ = differences((built[0], built[1]), ids, allowed, inner)
        found += [msgspec.structs.replace(difference, name=name) for difference in stages if difference.name == stage]
    report("done", len(cuts), len(cuts))
    return report_of(pair, ids, allowed, found, inside=stage)


def _entry_of(bundle: Bundle, stage: str) -> StageEntry:
    entries = {entry.spec.name: entry for entry in bundle.manifest.stages}
    if stage not in entries:
        raise ConfigError(f'{bundle.path} has no stage "{stage}"; expected one of {", ".join(entries)}')
    return entries[stage]


def cut_system(system: System, stage: str, cut: Cut | None, directory: Path) -> System:
    """The system up to a cut (None: the end of the stage), in a bundle of its own."""
    bundle = system.bundle
    names = [entry.spec.name for entry in bundle.manifest.stages]
    kept = bundle.manifest.stages[: names.index(stage) + 1]
    made = [_write_graph(bundle, entry, cut if entry.spec.name == stage else None, directory) for entry in kept]
    entries = [entry for entry, _ in made]
    engines = {}
    if system.target != PORTABLE:
        family = _family(bundle, system.target, [entry.spec for entry in entries])
        engines[system.target] = {
            entry.spec.name: _compile(bundle, directory, entry.spec, system.target, nodes, family) for entry, nodes in made
        }
    manifest = msgspec.structs.replace(
        bundle.manifest, stages=tuple(entries), engines=engines, tokenizer=None, files=list_files(directory)
    )
    write_manifest(directory, manifest)
    return System(open_bundle(directory), system.target, system.provider)


def _write_graph(
    bundle: Bundle, entry: StageEntry, cut: Cut | None, directory: Path
) -> tuple[StageEntry, frozenset[str] | None]:
    """A stage, whole or up to a cut, in a new bundle; what it is, and the names of its nodes if it was cut."""
    source, target = bundle.file(entry.graph), directory / entry.graph
    if cut is not None:
        spec, nodes = write_prefix(source, target, entry.spec, cut)
        return msgspec.structs.replace(entry, spec=spec), nodes
    target.parent.mkdir(parents=True, exist_ok=True)
    for file in source.parent.glob(f"{source.name}*"):  # its weights lie beside it
        shutil.copyfile(file, target.with_name(file.name))
    return entry, None


def _family(bundle: Bundle, target: str, specs: Sequence[StageSpec]) -> DeviceFamily | None:
    """As the bundle's own engines were built, if it has some."""
    model, options = bundle.manifest.model, None
    if target in bundle.manifest.engines:
        sidecar = bundle.sidecar(target, specs[0].name)
        limits = sidecar.limits
        if limits is not None:
            options = EngineOptions(
                max_batch=limits.batch, capacity=limits.capacity, max_prefill=limits.prefill, dialect=sidecar.dialect
            )
    return family_for(model, specs, target, options)


def _compile(
    bundle: Bundle, directory: Path, spec: StageSpec, target: str, nodes: frozenset[str] | None, family: DeviceFamily | None
) -> str:
    products, scales = written(bundle, spec.name)
    if nodes is not None:
        products = [product for product in products if f"{product.product}/MatMul" in nodes]
    return compile_stage(directory, spec, target, products, scales[: len(spec.attentions)], family, native=False)
