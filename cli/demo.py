"""`foveal demo`: the main job from end to end, on the checkpoints that come with foveal."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..bundle import open_bundle
from ..models import SHIPPED, SHIPPED_TEXT
from .console import out, progress
from .engine_table import show_engines
from .eval import show_quality
from .inspect import show_bundle
from .precision_table import show_precisions
from .threads import pool_threads

if TYPE_CHECKING:
    from ..calibration import Quality

PROMPT = "It was a dark and stormy night, and"
PRECISION = "int8"
RTX = "tensorrt-rtx"


def demo(
    directory: Annotated[Path, typer.Option(help="Where the bundles go.")] = Path("build/demo"),
    prompt: Annotated[str, typer.Option(help="Text to continue.")] = PROMPT,
) -> None:
    """Convert a trained Hourglass, verify it, write a paragraph; build it in int8, for RTX GPUs too; measure both."""
    bundles = {name: directory / f"{name}.bundle" for name in ("hourglass", "vanilla")}
    for name, bundle in bundles.items():
        _convert(SHIPPED[name], bundle)
    full, small = bundles["hourglass"], directory / f"hourglass-{PRECISION}.bundle"
    _verify(full, SHIPPED["hourglass"])
    _generate(full, prompt)
    _build(full, small)
    _build_for_rtx(small)
    quality = _evaluate(small, full)
    _bench(directory, [full, small, bundles["vanilla"]], SHIPPED["hourglass"], quality)


def _convert(checkpoint: Path, bundle: Path) -> None:
    from .. import convert

    out.rule(f"foveal convert {checkpoint.name}", align="left")
    with progress("convert") as report:
        convert(checkpoint, bundle, on_progress=report)
    show_bundle(open_bundle(bundle))


def _verify(bundle: Path, checkpoint: Path) -> None:
    from ..export import verify

    out.rule("foveal verify", align="left")
    with progress("verify") as report:
        result = verify(bundle, checkpoint, on_progress=report)
    result.require_equal()
    worst = max(check.max_abs_error for check in result.checks)
    out.print(f"{len(result.checks)} comparisons with PyTorch, at every phase and in chunks: largest error {worst:.1e}")
    out.print(str(result.coverage), markup=False)


def _generate(bundle: Path, prompt: str) -> None:
    from .. import load

    out.rule("foveal generate", align="left")
    text = prompt + "".join(load(bundle).generate(prompt, max_new_tokens=120, temperature=0.6, top_p=0.95, seed=1))
    out.print(textwrap.fill(text, 80), markup=False)


def _build(full: Path, small: Path) -> None:
    from .. import build

    out.rule(f"foveal build --precision {PRECISION}", align="left")
    with progress("build") as report:
        made = build(full, small, PRECISION, calibration=[SHIPPED_TEXT["calibration"]], on_progress=report)
    show_precisions(made)


def _build_for_rtx(bundle: Path) -> None:
    """Engines for RTX GPUs, which takes none; and what this machine would do with them."""
    from .. import BackendUnavailable, build
    from ..runtime.preflight import check

    out.rule(f"foveal build {bundle.name} --target {RTX}; foveal check {bundle.name}", align="left")
    try:
        with progress("build") as report:
            made = build(bundle, target=RTX, on_progress=report)
    except BackendUnavailable as error:  # there is none for some processors and systems
        out.print(f"not built: {error}", markup=False)
        return
    show_engines(made, RTX)
    found = check(made, RTX)
    out.print(f"{RTX}: {found.answer}: {found.sentence}", markup=False)


def _evaluate(small: Path, full: Path) -> Quality:
    from .. import evaluate

    out.rule(f"foveal eval {small.name} --against {full.name}", align="left")
    with progress("eval") as report:
        quality = evaluate(small, [SHIPPED_TEXT["evaluation"]], reference=full, on_progress=report)
    show_quality(quality)
    return quality


def _bench(directory: Path, bundles: list[Path], checkpoint: Path, quality: Quality) -> None:
    from ..bench.decode import Load
    from ..bench.random_models import RandomModels
    from ..bench.run import bench
    from ..bench.show import show
    from ..hierarchy import Hierarchy
    from ..models.checkpoint import read_config

    out.rule("foveal bench", align="left")
    config = read_config(checkpoint)
    sizes = RandomModels(config.dim, config.heads, config.ff_dim, config.vocab_size, config.max_positions)
    flat = f"{Hierarchy.parse(config.hierarchy).depth}@1"
    with progress("bench") as report:
        bundles = [*bundles, *sizes.convert([flat], directory, report)]
        threads = pool_threads(bundles[0], "cpu", None)
        result = bench(bundles, Load(prompt_tokens=128, new_tokens=256, rounds=4), threads=threads, on_progress=report)
    show(result, out)
    out.print(f"vanilla: trained with the same compute. {flat}: random weights, the Hourglass's layers all at every token.")
    small, full = result.models[1], result.models[0]
    gain = small.latency.decode_tokens_per_s / full.latency.decode_tokens_per_s
    out.print(f"{PRECISION} against fp32: {quality.bits_per_byte_change:+.2%} bits per byte, {gain:.2f} times as fast")
