"""An fp32 bundle becomes a bundle of another precision, or a bundle gets engines for another target."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ..bundle import CHAT_FILES, Bundle, StageEntry, check_target, list_files, new_bundle, open_bundle, write_manifest
from ..calibration.calibrate import Calibration, calibrate
from ..calibration.settings import CalibrationSettings
from ..calibration.text import Texts, as_texts
from ..contract import StageSpec
from ..errors import ConfigError
from ..hub.names import hub_name
from ..places import resolve
from ..precision import Plan, read_plan
from ..progress import Progress, silent, within
from ..storage import storage_errors
from .add_engines import add_engines
from .compile import compile_sampler, compile_stage, version
from .graphs.dialect import dialect_named
from .graphs.gpu import DeviceFamily
from .precision.write_precision import write_precision
from .targets import family_for
from .tensorrt.options import EngineOptions
from .tensorrt.turing import check_turing


@storage_errors()
def build(
    bundle: str | Path | Bundle,
    out: str | Path | None = None,
    precision: str | Plan | Path | None = None,
    target: str = "cpu",
    *,
    calibration: Texts | Calibration = (),
    settings: CalibrationSettings | None = None,
    options: EngineOptions | None = None,
    native: bool | None = None,
    on_progress: Progress | None = None,
) -> Bundle:
    """Write `bundle`, which is fp32, in another precision, with engines for `target`; or add such engines to `bundle` itself.

    Args:
        bundle: the fp32 bundle to start from, which is left as it is; without `out` one of any precision, which gets the
            engines, whole or not at all.
        out: the bundle to write; one that is there is replaced. None: add engines to `bundle`.
        precision: of all stages, or a plan (or the path of its JSON) that says it for each. None: int8; without `out` that of
            `bundle`.
        target: `"cpu"`, `"tensorrt"` or `"tensorrt-rtx"`.
        calibration: text, or what `calibrate` found in it; `int8` and `fp16` need it, `w4` rounds better with it. Text that a
            plan takes nothing from, as one of fp32 or of w8 for a GPU, is not read.
        settings: how text becomes ranges.
        options: of TensorRT engines: their largest shapes, and how they are built.
        native: whether `cpu` engines get programs of native steps beside them (docs/engines.md); None: they do.
        on_progress: called before each step, and as far as it is known within it.

    Raises:
        ConfigError: unknown precision, target, stage or product; a bundle that is not fp32, or is to be replaced; no text where
            it is needed; options that mean nothing to the target; another precision than the bundle's without `out`.
        BackendUnavailable: the target's library is not installed.
        CalibrationError: too little text.
        BuildError: the library refuses a stage, or a product did not get the precision it was written in; nothing is left at
            `out`, and nothing added to `bundle`.
        BundleError: `out` holds something else than a bundle, or is inside one.
        StorageError: nothing can be written at `out` (known before anything is built), or the disk is full.
    """
    check_target(target)
    if out is None and not isinstance(bundle, Bundle) and hub_name(bundle) is not None:
        raise ConfigError(f"engines can't be added to {bundle}, which is on a hub; name a bundle to write")
    opened, report = bundle if isinstance(bundle, Bundle) else open_bundle(bundle), on_progress or silent
    model, specs = opened.manifest.model, [entry.spec for entry in opened.manifest.stages]
    family = family_for(model, specs, target, options)
    if out is None:
        _check_same_precision(opened, precision)
        if settings is not None or isinstance(calibration, Calibration) or as_texts(calibration):
            raise ConfigError(
                f"calibration text changes graphs, and engines are added to {opened.path} without a change of its graphs; "
                "say where to write another bundle: out=..., or leave the text out"
            )
        return add_engines(opened, target, family, report, wants_programs(native, target))
    path, plan, programs = Path(out), plan_of(precision or "int8"), wants_programs(native, target)
    if resolve(path) == resolve(opened.path):
        raise ConfigError(f"{path} is the bundle to start from; choose another path for the one to write")
    if opened.manifest.precision != "fp32":
        raise ConfigError(f"the bundle is {opened.manifest.precision}, expected fp32; build from the bundle it was made from")
    check_stages(plan, specs)
    check_turing(plan, family)
    check_text_counts(plan, calibration, settings)
    with new_bundle(path, report) as directory:
        write_in_precision(opened, directory, plan, target, family, calibration, settings, report, programs)
    return open_bundle(path)


def wants_programs(native: bool | None, target: str) -> bool:
    """Whether engines get programs of native steps; raises ConfigError if that was said of engines that have none."""
    if native is not None and target != "cpu":
        raise ConfigError(f"native={native} for target {target}: only cpu engines have programs of native steps; leave it out")
    return native is not False


def copy_chat_files(source: Path, directory: Path) -> None:
    """Copy what lies beside a tokenizer and says how a chat becomes a prompt."""
    for name in CHAT_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, directory / name)


def write_in_precision(
    opened: Bundle,
    directory: Path,
    plan: Plan,
    target: str,
    family: DeviceFamily | None,
    calibration: Texts | Calibration,
    settings: CalibrationSettings | None,
    report: Progress,
    native: bool,
) -> None:
    """Write an fp32 bundle in another precision to `directory`, with engines for `target`.

    Raises:
        As `build`.
    """
    ranges = _ranges(opened, calibration, settings, report) if plan.learns_from_text(target) else None
    dialect = dialect_named(opened.manifest.dialect)
    stages, steps = opened.manifest.stages, 2 * len(opened.manifest.stages) + 1
    if opened.manifest.tokenizer == "tokenizer.json":
        shutil.copyfile(opened.file("tokenizer.json"), directory / "tokenizer.json")
        copy_chat_files(opened.path, directory)
    entries, engines, known = [], {}, set()
    for index, entry in enumerate(stages):
        name = entry.spec.name
        report(f"writing stage {name}", 2 * index, steps)
        written = write_precision(opened.file(entry.graph), directory / entry.graph, name, plan, ranges, dialect)
        spec = msgspec.structs.replace(entry.spec, cache_dtype=written.cache_dtype)
        entries.append(
            StageEntry(spec=spec, graph=entry.graph, weight_bytes=written.weight_bytes, table_bytes=written.table_bytes)
        )
        known |= {product.product for product in written.products}
        doing = f"compiling stage {name} for {target}"
        report(doing, 2 * index + 1, steps)
        inner = within(report, doing, 2 * index + 1, steps)
        engines[name] = compile_stage(directory, spec, target, written.products, written.cache_scales, family, inner, native)
    engines |= compile_sampler(directory, target, family)
    _check_products(plan, known)
    report("hashing", steps - 1, steps)
    manifest = msgspec.structs.replace(
        opened.manifest,
        foveal_version=version(),
        precision=plan.label,
        plan=plan,
        stages=tuple(entries),
        engines={target: engines},
        files=list_files(directory),
    )
    write_manifest(directory, manifest)
    report("done", steps, steps)


def _check_same_precision(bundle: Bundle, precision: str | Plan | Path | None) -> None:
    manifest = bundle.manifest
    if precision is None or precision == manifest.precision:
        return
    plan = plan_of(precision)
    if plan != manifest.plan:
        raise ConfigError(
            f"{bundle.path} is {manifest.precision}, asked for is {plan.label}, which is another bundle; "
            "say where to write it: out=..., or `foveal build BUNDLE OUT`"
        )


def plan_of(precision: str | Plan | Path) -> Plan:
    """A plan as it is, from its JSON, or of one precision for everything."""
    if isinstance(precision, Plan):
        return precision
    if isinstance(precision, Path):
        return read_plan(precision)
    return Plan(default=precision)


def require_text(plan: Plan, given: Texts | Calibration) -> None:
    """Raise ConfigError if a plan depends on activations and there is no text to learn them from."""
    if plan.needs_calibration() and not isinstance(given, Calibration) and not as_texts(given):
        what = "the plan" if plan.label == "mixed" else plan.label
        raise ConfigError(
            f"{what} needs text to calibrate on, got none; give files that are like what the model will read: "
            "calibration=[...], or --calibration FILE"
        )


def check_text_counts(plan: Plan, given: Texts | Calibration, settings: CalibrationSettings | None) -> None:
    """Raise ConfigError if text is missing where a plan needs it, or there are settings of no text, or text for plain fp32."""
    has_text = not isinstance(given, Calibration) and bool(as_texts(given))
    if has_text and plan == Plan():
        raise ConfigError("an fp32 bundle is not calibrated, got calibration text; choose a precision, or leave the text out")
    require_text(plan, given)
    if settings is not None and not has_text:
        raise ConfigError(
            "calibration settings say how text becomes ranges, got no text; give calibration=[...], or leave them out"
        )


def _ranges(
    bundle: Bundle,
    given: Texts | Calibration,
    settings: CalibrationSettings | None,
    report: Progress,
) -> Calibration | None:
    if isinstance(given, Calibration):
        return given
    return calibrate(bundle, given, settings, on_progress=report) if as_texts(given) else None


def check_stages(plan: Plan, specs: Sequence[StageSpec]) -> None:
    """Raise ConfigError if a plan names a stage that is not among these."""
    names = [spec.name for spec in specs]
    for stage in plan.stages:
        if stage not in names:
            raise ConfigError(f'the plan names the stage "{stage}", expected one of {", ".join(names)}')


def _check_products(plan: Plan, known: set[str]) -> None:
    for product in plan.products:
        if product not in known:
            raise ConfigError(
                f'the plan names the product "{product}", which the model has not; it has for instance "{min(known)}"'
            )
