"""`foveal eval BUNDLE --text FILE...`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import msgspec
import typer
from rich.table import Table

from .conditions import require
from .console import out, print_json, progress
from .options import Native, Threads, native_counts, threads_count
from .threads import pool_threads

if TYPE_CHECKING:
    from ..calibration import Probe, Quality


def evaluate(
    context: typer.Context,
    bundle: Annotated[Path, typer.Argument(help="The bundle to measure.")],
    text: Annotated[list[Path], typer.Option(help="Text: files, or directories of *.txt.")],
    against: Annotated[Optional[Path], typer.Option(help="A bundle to compare with, usually the fp32 one.")] = None,  # noqa: UP045
    probe: Annotated[bool, typer.Option(help="Also probe how far back the order of tokens matters.")] = False,
    plot: Annotated[Optional[Path], typer.Option(help="Draw the probe, as .svg or .png; implies --probe.")] = None,  # noqa: UP045
    limit: Annotated[Optional[int], typer.Option(help="Measure at most so many windows.")] = None,  # noqa: UP045
    window: Annotated[Optional[int], typer.Option(help="Tokens per window; the context, at most 512.")] = None,  # noqa: UP045
    target: Annotated[str, typer.Option(help="Whose engines to run.")] = "cpu",
    threads: Threads = None,
    native: Native = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Measure bits per byte, loss by token frequency, distance from another bundle, and what shuffled context costs.

    Where the data decides when stages fire: margins and tokens per firing; --against also forces the other's schedule.
    """
    from .. import evaluate as evaluate_bundle
    from .. import probe as probe_bundles
    from ..calibration.plotting import require_picture
    from ..calibration.probe import WINDOWS

    require(context, {"threads": threads_count(target), "native": native_counts(target)})
    if plot is not None:
        require_picture(plot)
    threads = pool_threads(bundle, target, threads, native)
    engines: dict[str, Any] = {"target": target, "threads": threads, "native": native}
    probes: list[Probe] = []
    with progress("eval") as report:
        quality = evaluate_bundle(bundle, text, reference=against, **engines, window=window, limit=limit, on_progress=report)
        if probe or plot is not None:
            bundles = [bundle] if against is None else [bundle, against]
            probes = probe_bundles(
                bundles,
                text,
                **engines,
                window=window,
                limit=WINDOWS if limit is None else limit,
                on_progress=report,
            )
    if plot is not None:
        from ..calibration.probe_plot import draw_probes

        draw_probes(plot, probes)
    if json:
        print_json(msgspec.json.encode({"quality": quality, "probes": probes}))
        return
    show_quality(quality)
    for found in probes:
        _show_probe(found)


def show_quality(quality: Quality) -> None:
    """Print the figures, then the same by how common the token is."""
    out.print(
        f"{quality.bundle} ({quality.precision}): {_bits(quality.bits_per_byte)}"
        f"{quality.nats_per_token:.4f} ± {quality.nats_half_width:.4f} nats per token, {quality.tokens:,} tokens"
    )
    if quality.reference is not None:
        known, unit = quality.reference_bits_per_byte, "nats per token" if quality.bits_per_byte is None else "bits per byte"
        out.print(
            f"against {quality.reference}{'' if known is None else f' ({known:.4f})'}: "
            f"{quality.bits_per_byte_change:+.3%} ± {quality.bits_per_byte_change_half_width:.3%} {unit}, "
            f"KL {quality.kl_nats:.2e} ± {quality.kl_half_width:.1e} nats, "
            f"same likeliest token {quality.top1_agreement:.2%} ± {quality.top1_half_width:.2%}"
        )
        if not quality.is_difference_shown:
            out.print(f"No difference in {unit} is shown: the 95 % interval includes 0. More text narrows it.")
    _show_clocks(quality)
    table = Table(box=None, header_style="bold")
    for column in ("occurrences per million", "tokens", "nats", "against", "rise", "KL", "same likeliest"):
        table.add_column(column, justify="right")
    for bucket in quality.buckets:
        span = f"{bucket.at_least:,} and more" if bucket.below is None else f"{bucket.at_least:,} to {bucket.below:,}"
        row = [span, f"{bucket.tokens:,}", f"{bucket.nats_per_token:.4f}"]
        if bucket.reference_nats_per_token is not None:
            rise = bucket.nats_per_token - bucket.reference_nats_per_token
            row += [f"{bucket.reference_nats_per_token:.4f}", f"{rise:+.4f}"]
            row += [f"{bucket.kl_nats:.2e}", f"{bucket.top1_agreement:.2%}"]
        table.add_row(*row)
    out.print(table, markup=False)


def _show_clocks(quality: Quality) -> None:
    """Of a model whose firings the data decides: what boundaries that move cost, how many do, and how near decisions are."""
    forced = quality.forced
    if forced is not None:
        out.print(
            f"same schedule forced: {_bits(forced.bits_per_byte)}{forced.bits_per_byte_change:+.3%} ± "
            f"{forced.bits_per_byte_change_half_width:.3%}, KL {forced.kl_nats:.2e} ± {forced.kl_half_width:.1e} nats, same "
            f"likeliest token {forced.top1_agreement:.2%}; own schedule: as above"
        )
    for clock in quality.clocks:
        name = "ids of tokens" if clock.decided_by is None else f"stage {clock.decided_by}"
        pace = "no boundary" if clock.tokens_per_boundary is None else f"{clock.tokens_per_boundary:.2f} tokens per boundary"
        out.print(f"{name} fires {', '.join(clock.fires)}: {clock.boundaries:,} boundaries in {clock.tokens:,} tokens, {pace}")
        if clock.flips is not None and clock.flips_per_token is not None and clock.equal_share is not None:
            error = "" if clock.value_error is None else f"; mean error of a value {clock.value_error:.1e}"
            out.print(
                f"  {clock.flips:,} decisions flip, {clock.flips_per_token:.2e} per token; on its own schedule {clock.moved:,} "
                f"boundaries are moved, {clock.equal_share:.2%} are equal{error}"
            )
        if clock.margins is not None:
            shares = ", ".join(f"{share} below {margin:.1e}" for share, margin in clock.margins.quantiles.items())
            out.print(
                f"  margins to the threshold {clock.threshold:g}: smallest {clock.margins.smallest:.1e}, {shares}; "
                f"{clock.margins.density:.2g} of all values per unit at the threshold"
            )


def _bits(per_byte: float | None) -> str:
    return "" if per_byte is None else f"{per_byte:.4f} bits per byte, "


def _show_probe(found: Probe) -> None:
    out.print(
        f"{found.bundle} ({found.hierarchy}, {found.precision}): "
        f"the first half of {found.windows} windows of {found.window} tokens shuffled"
    )
    table = Table(box=None, header_style="bold")
    table.add_column("tokens behind the border")
    table.add_column("rise of the loss, nats", justify="right")
    for distance in found.distances:
        span = str(distance.first) if distance.first == distance.last else f"{distance.first} to {distance.last}"
        table.add_row(span, f"{distance.nats:+.3f} ± {distance.half_width:.3f}")
    out.print(table, markup=False)
    settled = "never" if found.settles_at is None else f"from {found.settles_at} tokens on"
    out.print(f"below {found.threshold} nats: {settled}")
