"""`foveal push BUNDLE owner/name`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from .conditions import require
from .console import err, out, write


def push(
    context: typer.Context,
    bundle: Annotated[Path, typer.Argument(help="The bundle to publish; it is checked whole first.")],
    repository: Annotated[str, typer.Argument(help="Where: owner/name. It is made if there is none.")],
    private: Annotated[bool, typer.Option("--private", help="Make the repository private.")] = False,
    revision: Annotated[Optional[str], typer.Option(help="A branch, which is made if there is none; else main.")] = None,  # noqa: UP045
    message: Annotated[Optional[str], typer.Option(help="Of the commit.")] = None,  # noqa: UP045
    license: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="As hubs call it, such as apache-2.0; if not given, that of the checkpoint's card."),
    ] = None,
    target: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Publish the engines for this target; several can be given. If not given, all."),
    ] = None,
    measured: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option(help="Figures for the card: a file that `foveal bench BUNDLE --save FILE` wrote. Several can be given."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Send nothing: print the card, and list the files.")] = False,
) -> None:
    """Publish a bundle on a model hub, with a model card, in one commit."""
    from ..hub.push import pack
    from ..hub.push import push as publish
    from .measured import figures_of

    sends = not dry_run, "no --dry-run, which sends nothing"
    require(context, {"private": sends, "revision": sends, "message": sends})
    figures = [found for path in measured or () for found in figures_of(path, bundle)]
    parcel = pack(bundle, repository, targets=target or (), license=license, figures=figures)
    sizes = parcel.sizes()
    if dry_run:
        for path, size in sizes.items():
            err.print(f"{size:>12,}  {path}")
        write(parcel.card)
        return
    if "\nlicense: " not in parcel.card:
        err.print("note: the card names no license, as the checkpoint's does not; --license NAME does")
    err.print(f"publishing {len(sizes)} files, {sum(sizes.values()) / 1e6:.1f} MB")
    done = publish(parcel, repository, private=private, revision=revision, message=message or "")
    out.print(done.url)
    out.print(f"run it with `foveal generate {done.name}`")
