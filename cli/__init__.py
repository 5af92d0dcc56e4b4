"""The `foveal` command: one thin file per verb, which parses, calls one function of the library and prints."""

from __future__ import annotations

import sys
import warnings

import typer

from ..errors import FovealError, FovealWarning, unavailable
from ..storage import storage_errors
from .bench import bench
from .bench_claims import claims
from .bench_diff import diff
from .bench_speculation import speculation
from .bench_sweep import sweep
from .bisect import bisect
from .build import build
from .calibrate import calibrate
from .check import check
from .compare import compare
from .convert import convert
from .default_group import DEFAULT, DefaultGroup
from .demo import demo
from .doctor import doctor
from .eval import evaluate
from .export_triton import export_triton
from .forecast import forecast
from .generate import generate
from .inspect import inspect
from .plan_batch import plan_batch
from .push import push
from .report import report
from .score import score
from .serve import serve
from .threads import own_process
from .train import train
from .verify import verify

app = typer.Typer(
    help="Hierarchical language models, exported per scale and run so that coarse stages fire only when due.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for verb in (
    convert,
    calibrate,
    build,
    check,
    verify,
    compare,
    bisect,
    inspect,
    report,
    forecast,
    generate,
    score,
    serve,
    train,
    doctor,
    demo,
    push,
):
    app.command()(verb)
app.command("eval")(evaluate)
app.command("export-triton")(export_triton)
benches = typer.Typer(cls=DefaultGroup, help="Measure latency, memory and the share of the memory bandwidth that is reached.")
benches.command(
    DEFAULT,
    epilog="Contexts, batches, threads, strides: foveal bench sweep. Two saved results: foveal bench diff. The article's "
    "claims: foveal bench claims. What drafts gain: foveal bench speculation. Each with --help.",
)(bench)
benches.command()(sweep)
benches.command()(diff)
benches.command()(claims)
benches.command()(speculation)
app.add_typer(benches, name="bench")
plans = typer.Typer(help="Say beforehand what a batch would do.", no_args_is_help=True)
plans.command("batch")(plan_batch)
app.add_typer(plans, name="plan")


def main() -> None:
    """Run the command; errors foveal raises on purpose become one line and their exit code."""
    own_process()
    warnings.showwarning = _show_warning
    try:
        with storage_errors():
            app()
    except KeyboardInterrupt:
        sys.exit(130)
    except FovealError as error:
        print(f"foveal: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except ImportError as error:
        if (missing := unavailable(error, "this")) is None:
            raise
        print(f"foveal: {missing}", file=sys.stderr)
        sys.exit(missing.exit_code)
    except UnicodeEncodeError as error:
        wrong = error.object[error.start : error.end]
        print(
            f"foveal: the output is {error.encoding}, which can't hold {wrong!a}; set PYTHONUTF8=1, or another locale",
            file=sys.stderr,
        )
        sys.exit(1)


def _show_warning(message: Warning | str, category: type[Warning], *where: object, **more: object) -> None:
    """Of foveal's own, what is said, without the line of code that says it; others' are for their developers."""
    if issubclass(category, FovealWarning):
        print(f"foveal: warning: {message}", file=sys.stderr)
