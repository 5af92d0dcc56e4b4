"""`foveal demo`: the main job from end to end, on the checkpoints that come with foveal."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Annotated

import typer

from ..models import SHIPPED
from .console import out, progress

PROMPT = "It was a dark and stormy night, and"


def demo(
    directory: Annotated[Path, typer.Option(help="Where the bundles go.")] = Path("build/demo"),
    prompt: Annotated[str, typer.Option(help="Text to continue.")] = PROMPT,
) -> None:
    """Convert a trained Hourglass, verify it, write a paragraph, benchmark it beside the vanilla Transformer."""
    from .. import convert, load
    from ..bench.decode import Load
    from ..bench.run import bench
    from ..bench.show import show
    from ..export import verify
    from .inspect import inspect

    bundles = {name: directory / f"{name}.bundle" for name in SHIPPED}
    for name, path in bundles.items():
        out.rule(f"foveal convert {name}", align="left")
        with progress("convert") as report:
            convert(SHIPPED[name], path, on_progress=report)
        inspect(path)
    hourglass = bundles["hourglass"]
    out.rule("foveal verify", align="left")
    with progress("verify") as report:
        result = verify(hourglass, SHIPPED["hourglass"], on_progress=report)
    result.require_equal()
    worst = max(check.max_abs_error for check in result.checks)
    out.print(f"{len(result.checks)} comparisons with PyTorch, at every phase and in chunks: largest error {worst:.1e}")
    out.rule("foveal generate", align="left")
    model = load(hourglass)
    text = prompt + "".join(model.generate(prompt, max_new_tokens=120, temperature=0.7, top_p=0.95, seed=1))
    out.print(textwrap.fill(text, 100), markup=False)
    out.rule("foveal bench", align="left")
    with progress("bench") as report:
        measured = bench(list(bundles.values()), Load(prompt_tokens=128, new_tokens=256), on_progress=report)
    show(measured, out)
