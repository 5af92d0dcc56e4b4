"""What TensorRT-RTX makes of bundles' stages in their precisions: the table of docs/precision-tensorrt.md. Needs no GPU.

python -m foveal.bench.tensorrt_layers BUNDLE...
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import onnx_ir as ir

from ..bundle import Bundle, StageEntry, open_bundle
from ..calibration.products import find_products
from ..export.rtx_build import BuiltStage, Sizes, build_stage
from ..export.rtx_layers import executed_products
from ..precision import ProductPrecision
from .environment import read_environment

_HEADER = ("precision", "stage", "build, s", "engine, MB", "kernels, by the narrowest type they read", "products")


class Row(NamedTuple):
    """One stage's line: what it was to be, and what the compiler made of it."""

    precision: str
    stage: str
    seconds: float
    megabytes: float
    kernels: Counter[str]
    products: Counter[str]


def measure(bundle: Bundle) -> Iterator[Row]:
    """Build every stage for its whole context and see how its products are run.

    Raises:
        BackendUnavailable, BuildError: as `build_stage`.
    """
    for entry in bundle.manifest.stages:
        rows = entry.spec.capacity_rows(bundle.manifest.model.context)
        built = build_stage(bundle.file(entry.graph), Sizes(batch=(1, 1, 4), rows=(1, 1, rows), capacity=rows))
        precision = bundle.manifest.precision + (" and tables" if bundle.manifest.plan.embedding else "")
        kernels = Counter(kernel.narrowest for kernel in built.kernels)
        products = _executed(built, _products(bundle, entry))
        yield Row(precision, entry.spec.name, built.seconds, len(built.engine) / 1e6, kernels, products)


def _products(bundle: Bundle, entry: StageEntry) -> Sequence[ProductPrecision]:
    """What the bundle says of a stage's products; of one that was only converted, those that stand in its graph."""
    said = bundle.sidecar("cpu", entry.spec.name).products
    return said or [
        ProductPrecision(
            product=found.name, rows=found.weight.shape[0], columns=found.weight.shape[1], asked="fp32", obtained="fp32"
        )
        for found in find_products(ir.load(bundle.file(entry.graph)))
    ]


def _executed(built: BuiltStage, products: Sequence[ProductPrecision]) -> Counter[str]:
    found: Counter[str] = Counter()
    for product in executed_products(built.kernels, products):
        found[product.precision + ("" if product.is_fused else ", widened apart")] += 1
    return found


def main(bundles: Sequence[Path]) -> None:
    """Print the table in Markdown, and what it was made on."""
    environment = read_environment()
    versions = ", ".join(f"{name} {version}" for name, version in environment.packages.items() if version is not None)
    machine = f"{environment.cpus_usable} CPUs of {environment.cpu}, Python {environment.python}"
    print(f"{environment.created_utc[:10]}, {machine}, {versions}", end="\n\n")
    print(_line(_HEADER), _line(["---"] * len(_HEADER)), sep="\n")
    for path in bundles:
        rows = list(measure(open_bundle(path)))
        for row in rows:
            print(_line(_cells(row)), flush=True)
        print(_line(_cells(_total(rows), "**")), flush=True)


def _total(rows: Sequence[Row]) -> Row:
    """All stages of a bundle as one."""
    kernels, products = Counter[str](), Counter[str]()
    for row in rows:
        kernels += row.kernels
        products += row.products
    seconds, megabytes = sum(row.seconds for row in rows), sum(row.megabytes for row in rows)
    return Row(rows[0].precision, "all", seconds, megabytes, kernels, products)


def _cells(row: Row, emphasis: str = "") -> list[str]:
    figures = [f"{row.seconds:.1f}", f"{row.megabytes:.1f}", _counted(row.kernels), _counted(row.products)]
    return [f"{emphasis}{cell}{emphasis}" for cell in (row.precision, row.stage, *figures)]


def _counted(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counter.items())) or "-"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
