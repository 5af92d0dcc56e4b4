"""What there is to see of TensorRT engines."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

from rich.table import Table

from ..bundle import Bundle
from .console import out


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
    """Print the kernels of every engine of a target, in the order they run."""
    from ..export.tensorrt.layers import read_layers

    for name, engine in bundle.manifest.engines[target].items():
        layers = read_layers(bundle.file(engine))
        out.print(f"\n{target}, stage {name}: network of {counted(layers.network)}", markup=False)
        table = Table(box=None, header_style="bold")
        for column in ("profile", "kernel", "reads", "weights", "writes", "ONNX nodes", "tactic"):
            table.add_column(column, overflow="fold")
        for kernel in layers.kernels:
            tensors = kernel.inputs, kernel.constants, kernel.outputs
            types = [counted(Counter(tensor.type for tensor in some)) for some in tensors]
            table.add_row(_PROFILES[kernel.profile], kernel.label, *types, _few(kernel.nodes), _short(kernel.tactic))
        out.print(table, markup=False)


_PROFILES = ("decode", "prefill")


def counted(counts: Mapping[str, int]) -> str:
    """As `"13 Float, 8 Int8"`."""
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "-"


def _few(nodes: tuple[str, ...]) -> str:
    return nodes[0] + (f" and {len(nodes) - 1} more" if len(nodes) > 1 else "") if nodes else "-"


def _short(tactic: str) -> str:
    """The first digits of its hash, where it has one: the rest is in the kernel's name."""
    found = re.search(r"_0x([0-9a-f]{8})", tactic)
    return found[1] if found else tactic or "-"
