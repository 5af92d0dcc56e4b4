"""`foveal forecast MODEL --device D`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import msgspec
import typer

from ..bundle import Bundle, may_be_there, open_bundle
from ..errors import ConfigError
from ..files import require_place, write_atomically
from .conditions import require
from .console import err, out, print_json, progress
from .options import Native, Threads
from .threads import share_pool

if TYPE_CHECKING:
    from ..forecast.devices import AnyDevice, Engines
    from ..forecast.forecast import Work
    from ..forecast.search import Wanted
    from ..forecast.shapes import Shape
    from ..models.sizes import Sizes

THIS, ALL = "this", "all"


def forecast(
    context: typer.Context,
    model: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(help='A hierarchy, as "2@1 8@4 2@1", or a bundle; none with --search.'),
    ] = None,
    device: Annotated[
        str,
        typer.Option(
            help="Names separated by commas: orin-nano-8gb-super, rtx-4090, ... (an unknown one lists all); all; this, the "
            "machine that runs this, measured; or FILE.json."
        ),
    ] = ALL,
    dim: Annotated[int, typer.Option(help="Width of the hierarchy's model.")] = 512,
    heads: Annotated[int, typer.Option(help="Its attention heads.")] = 8,
    ff_dim: Annotated[int, typer.Option(help="Its feed-forward width.")] = 2048,
    vocab_size: Annotated[int, typer.Option(help="Its vocabulary.")] = 256,
    precision: Annotated[str, typer.Option(help="Its precision: fp32, fp16, int8, w8 or w4.")] = "fp32",
    room: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--context", help="Tokens that each sequence has room for; if not given, 1024, or the bundle's context."),
    ] = None,
    prompt_tokens: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Tokens read first; decoding is forecast behind them. Half of the context if not given."),
    ] = None,
    batch: Annotated[int, typer.Option(help="Sequences that decode in step.")] = 1,
    native: Native = None,
    threads: Threads = None,
    save: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Write what --device this measured to this file, which --device then takes."),
    ] = None,
    search: Annotated[
        bool, typer.Option("--search", help="Find the hierarchies that the device runs fastest, of equal work per token.")
    ] = False,
    parameters: Annotated[Optional[int], typer.Option(help="At most so many, of those found.")] = None,  # noqa: UP045
    layers: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Layer-equivalents (layers / stride) of those found, or up to a quarter more."),
    ] = None,
    top: Annotated[int, typer.Option(help="Print so many of those found.")] = 10,
    json: Annotated[bool, typer.Option("--json", help="Print the forecasts as JSON.")] = False,
) -> None:
    """Forecast speed, memory and energy of a model on devices, from bytes, arithmetic and firing rates. Nothing is run."""
    from ..forecast.forecast import Work, forecast_rows
    from ..forecast.show import show_forecasts
    from ..models.sizes import Sizes

    bundle, names = _bundle(model), _names(device)
    _require_one(model, search)
    sizes_count = bundle is None, "a hierarchy or --search, as a bundle has its own"
    measured = THIS in names, "--device this, which is measured"
    require(
        context,
        dict.fromkeys(("dim", "heads", "ff_dim", "vocab_size", "precision"), sizes_count)
        | dict.fromkeys(("parameters", "layers", "top"), (search, "--search"))
        | dict.fromkeys(("threads", "save"), measured),
    )
    if save is not None:
        require_place(save)
    limit = room if room is not None else 1024 if bundle is None else bundle.manifest.model.context
    prompt = prompt_tokens if prompt_tokens is not None else max(limit // 2, 1)
    work = Work(context=limit, prompt_tokens=prompt, batch=batch, native=native is not False)
    wanted = precision if bundle is None else bundle.manifest.precision
    sizes = Sizes(dim, heads, ff_dim, vocab_size, limit)
    looked_for = _wanted(parameters, layers, top) if search else None
    shapes = [] if search else _shapes(bundle, model or "", sizes, wanted)
    devices = {name: _device(name, (wanted,), native, threads) for name in names}
    is_cpu = any(not each.on_gpu for each in devices.values())
    require(context, {"native": (is_cpu, "a device that is a CPU, as GPUs have no native steps")})
    if save is not None:
        write_atomically(save, msgspec.json.format(msgspec.json.encode(devices[THIS]), indent=1) + b"\n")
        err.print(f"wrote {save}")
    if looked_for is not None:
        _search(looked_for, sizes, wanted, devices, work, None if json else top)
        return
    rows = forecast_rows(shapes, devices, work)
    if json:
        print_json(msgspec.json.encode(rows))
    else:
        show_forecasts(rows, list(devices.values()), out)


def _bundle(model: str | None) -> Bundle | None:
    """What is there, or looks like a place and no hierarchy, is a bundle, or refused as one; an empty text is no place."""
    if not model:
        return None
    is_place = "/" in model or ("@" not in model and any(map(str.isalpha, model)))
    return open_bundle(model) if is_place or may_be_there(model) else None


def _names(device: str) -> list[str]:
    from ..forecast.devices import known_devices

    return list(known_devices()) if device == ALL else [name.strip() for name in device.split(",")]


def _require_one(model: str | None, search: bool) -> None:
    """Either a model or a search for one."""
    if (model is None) != search:
        got = "both of a model and --search" if search else "neither a model nor --search"
        raise ConfigError(f'got {got}, expected one of them: a hierarchy such as "2@1 8@4 2@1" or a bundle, or --search')


def _wanted(parameters: int | None, layers: float | None, top: int) -> Wanted:
    from ..forecast.search import Wanted

    if parameters is None or layers is None:
        raise ConfigError("--search takes --parameters, the most there may be, and --layers, the layer-equivalents; give both")
    if top < 1:
        raise ConfigError(f"--top is {top}, expected at least 1 line")
    return Wanted(parameters, layers)


def _shapes(bundle: Bundle | None, model: str, sizes: Sizes, precision: str) -> list[Shape]:
    """For CPUs and for GPUs."""
    if bundle is not None:
        from ..forecast.shapes import shape_of_bundle

        return [shape_of_bundle(bundle, on_gpu) for on_gpu in (False, True)]
    from ..forecast.model_shapes import shape_of_hierarchy

    return [shape_of_hierarchy(model, sizes, precision, on_gpu) for on_gpu in (False, True)]


def _device(name: str, precisions: Sequence[str], native: bool | None, threads: int | None) -> AnyDevice:
    """One that is known, one of a file, or this machine: measured as it is asked about."""
    from ..forecast.devices import device_named

    if name != THIS:
        return device_named(name)
    from ..bench.environment import usable_cpus
    from ..bench.rates.machine import measure_machine
    from ..runtime.engines.onnxruntime_library import require_threads

    count = usable_cpus() if threads is None else threads
    require_threads(count)
    kind: Engines = "graph" if native is False else "native"
    if kind == "graph":
        share_pool(count)
    with progress("measuring this machine") as report:
        return measure_machine([kind], precisions, count, report)


def _search(
    wanted: Wanted, sizes: Sizes, precision: str, devices: Mapping[str, AnyDevice], work: Work, top: int | None
) -> None:
    """Print what is found for each device: so many, or as JSON all."""
    from ..forecast.search import search
    from ..forecast.show import show_search

    found = {name: search(wanted, sizes, precision, device, work, name) for name, device in devices.items()}
    if top is None:
        print_json(msgspec.json.encode(found))
        return
    told = f"at most {wanted.parameters:,} parameters, {wanted.layers:g} layer-equivalents"
    for rows in found.values():
        show_search(rows, told, top, out)
