"""What there is to see of TensorRT engines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from ..bundle import Bundle, open_bundle
from .console import out

if TYPE_CHECKING:
    from ..export.tensorrt.layers import Kernel


def show_forecast(bundle: Path) -> None:
    """Print the memory that building engines from a bundle is forecast to take."""
    from ..export.tensorrt.forecast import forecast_line

    out.print(forecast_line(max(entry.weight_bytes for entry in open_bundle(bundle).manifest.stages)), markup=False)


def show_engines(bundle: Bundle, target: str) -> None:
    """Print a line for each stage, and one for each product that is not what was asked."""
    table = Table(box=None, header_style="bold")
    for column in ("stage", "build, s", "engine, MB", "memory, MB", "kernels of a decode step", "products"):
        table.add_column(column, justify="right" if ", " in column else "left")
    reasons = []
    for name, engine in bundle.manifest.engines[target].items():
        sidecar, size = bundle.sidecar(target, name), bundle.manifest.files[engine].bytes
        build, products = sidecar.build, Counter(product.obtained for product in sidecar.products)
        if build is None:
            continue
        figures = f"{build.seconds:.1f}", f"{size / 1e6:.1f}", f"{build.peak_memory_bytes / 1e6:.0f}"
        table.add_row(name, *figures, counted(build.kernels), counted(products))
        reasons += [f"{p.product}: {p.obtained}, not {p.asked}: {p.reason}" for p in sidecar.products if p.reason]
    out.print(table, markup=False)
    for reason in reasons:
        out.print(reason, markup=False)


def show_layers(bundle: Bundle, target: str) -> None:
    """Print a line for each kernel of every engine of a target, in the order they run."""
    from ..export.tensorrt.layers import read_layers

    for name, engine in bundle.manifest.engines[target].items():
        layers = read_layers(bundle.file(engine))
        out.print(f"\n{target}, stage {name}: network of {counted(layers.network)}", markup=False)
        rows = [_HEADER, *(_row(kernel) for kernel in layers.kernels)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            out.print("  ".join(map(str.ljust, row, widths)).rstrip(), markup=False)


_HEADER = ("profile", "kernel", "reads", "constants", "writes", "tactic", "ONNX nodes")
_PROFILES = ("decode", "prefill")
_LONGEST = 40


def _row(kernel: Kernel) -> tuple[str, ...]:
    types = [counted(Counter(tensor.type for tensor in some)) for some in (kernel.inputs, kernel.constants, kernel.outputs)]
    label = kernel.label if len(kernel.label) <= _LONGEST else f"{kernel.label[: _LONGEST - 1]}…"
    return (_PROFILES[kernel.profile], label, *types, kernel.tactic_label, " ".join(kernel.nodes) or "-")


def counted(counts: Mapping[str, int]) -> str:
    """As `"13 Float, 8 Int8"`."""
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "-"
