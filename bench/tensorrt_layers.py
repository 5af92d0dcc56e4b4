"""What TensorRT-RTX makes of bundles' stages in their precisions: the table of docs/precision-tensorrt.md. Needs no GPU.

python -m foveal.bench.tensorrt_layers BUNDLE...
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ..bundle import Bundle, open_bundle
from ..export.graphs.dialect import DIALECTS
from ..export.graphs.gpu import lower
from ..export.tensorrt.build import build_engine
from ..export.tensorrt.compile import products_in
from ..export.tensorrt.family import family_of
from ..export.tensorrt.layers import executed_products
from ..export.tensorrt.options import EngineOptions
from ..export.tensorrt.profiles import DECODE
from .environment import read_environment

_HEADER = ("precision", "dialect", "stage", "build, s", "engine, MB", "kernels of a decode step, by what they read", "products")


class Row(NamedTuple):
    """One stage's line: what it was to be, and what the compiler made of it."""

    precision: str
    dialect: str
    stage: str
    seconds: float
    megabytes: float
    kernels: Counter[str]
    products: Counter[str]


def measure(bundle: Bundle, dialect: str) -> Iterator[Row]:
    """Build every stage for its whole context and see how a decode step runs its products.

    Raises:
        BackendUnavailable, BuildError: as `family_of` and `build_engine`.
    """
    manifest, specs = bundle.manifest, [entry.spec for entry in bundle.manifest.stages]
    family = family_of(manifest.model, specs, "tensorrt-rtx", EngineOptions(dialect=dialect))
    precision = manifest.precision + (" and tables" if manifest.plan.embedding else "")
    for entry in manifest.stages:
        built = build_engine(lower(bundle.file(entry.graph), entry.spec, family), family)
        decode = built.layers.of_profile(DECODE)
        products = bundle.sidecar("cpu", entry.spec.name).products or products_in(bundle.file(entry.graph))
        found: Counter[str] = Counter()
        for product in executed_products(decode, products):
            found[product.precision + ("" if product.is_fused else ", widened apart")] += 1
        kernels = Counter(kernel.narrowest for kernel in decode)
        yield Row(precision, dialect, entry.spec.name, built.seconds, built.engine.nbytes / 1e6, kernels, found)


def main(bundles: Sequence[Path]) -> None:
    """Print the table in Markdown, and what it was made on."""
    environment = read_environment()
    versions = ", ".join(f"{name} {version}" for name, version in environment.packages.items() if version is not None)
    machine = f"{environment.cpus_usable} CPUs of {environment.cpu}, Python {environment.python}"
    print(f"{environment.created_utc[:10]}, {machine}, {versions}", end="\n\n")
    print(_line(_HEADER), _line(["---"] * len(_HEADER)), sep="\n")
    for path in bundles:
        for dialect in DIALECTS:
            rows = list(measure(open_bundle(path), dialect))
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
    return Row(rows[0].precision, rows[0].dialect, "all", seconds, megabytes, kernels, products)


def _cells(row: Row, emphasis: str = "") -> list[str]:
    figures = [f"{row.seconds:.1f}", f"{row.megabytes:.1f}", _counted(row.kernels), _counted(row.products)]
    return [f"{emphasis}{cell}{emphasis}" for cell in (row.precision, row.dialect, row.stage, *figures)]


def _counted(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counter.items())) or "-"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
