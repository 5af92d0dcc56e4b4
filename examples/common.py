"""What the examples share: the bundle that they run, and errors in one line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import foveal

BUNDLE = "hourglass.bundle"


def parser_of(program: str, said: str) -> argparse.ArgumentParser:
    """A parser of an example's arguments, the first of which is a bundle; `said` is its docstring."""
    parser = argparse.ArgumentParser(
        program,
        description=said.partition("\n")[0],
        epilog=said.partition("\n")[2],
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--bundle", default=BUNDLE, help=f"a bundle of a model of text ({BUNDLE}: made if it is not there)")
    parser.add_argument("--threads", type=int, help="of the engines (measured once, and remembered)")
    return parser


def model_at(bundle: str, threads: int | None = None) -> foveal.Model:
    """Load a bundle. The default one is made, of a checkpoint that comes with foveal, if it is not there; that takes torch."""
    if bundle == BUNDLE and not Path(bundle).exists():
        checkpoint = Path(foveal.__file__).parent / "models" / "checkpoints" / "hourglass"
        print(f"converting {checkpoint} to {bundle}, once ...", file=sys.stderr)
        foveal.convert(checkpoint, bundle)
    return foveal.load(bundle, threads=threads)


def run(main: Callable[[Sequence[str] | None], None]) -> NoReturn:
    """Run an example; what it can't do is said in one line."""
    try:
        main(None)
    except foveal.FovealError as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)
